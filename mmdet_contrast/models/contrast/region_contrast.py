"""The contrastive branch: pool, project, compare."""

from math import log2
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor, nn

from ..losses import PairCriterion
from .background import occupied_boxes, sample_background_boxes
from .contrast_options import check_negatives, check_options
from .gather import gather_pairs, gather_rows
from .pair_weights import area_weights, iou_weights, jitter_rois
from .pairs import COLLECTORS, Pairs
from .region_embedder import RegionEmbedder


class _Rows(NamedTuple):
    """What a level compares; query and key correspond row by row."""

    query: Tensor  # (M, D)
    key: Tensor  # (M, D)
    labels: Tensor  # (M,)
    groups: Optional[Tensor]  # (M,)
    weights: Optional[Tensor]  # (M,)
    anchors: Optional[Tensor]  # (M,) bool
    total: Tensor  # scalar: number, or weight, of this rank's pairs
    background: Optional[Tensor]  # (K, D)
    background_mask: Optional[Tensor]  # (M, K) bool


@MODELS.register_module()
class RegionContrast(RegionEmbedder):
    """Contrast the features of each object in an image with those in the image's second view.

    Per pyramid level: the objects' regions are pooled from both views (RoIAlign), flattened,
    projected and handed to ``criterion``; with a ``sampler`` the features of single locations
    take the place of the regions. The loss of a level is multiplied by its weight and, with
    ``assign='all'``, divided by the number of levels, so the sum is their (weighted) mean.

    Under distributed training the terms are divided by the mean number (or weight) of anchors over
    the ranks, so that the averaged gradients are those of one process with the joined batch.

    Args:
        in_channels (int | Sequence[int]): Channels C of every level, or of each. Where they differ
            each level needs a projector of its own (``share_projector=False``).
        strides (Sequence[int]): Stride of every level in pixels.
        levels (Sequence[int], optional): Indices of the levels used. Defaults to all.
        level_weights (Sequence[float], optional): A factor for each level used. Defaults to 1.
        assign (str): ``'all'``: every box on every level, compared within the level.
            ``'scale'``: a box only on the level whose stride suits its size, that is, whose basic
            anchor (4 strides) is nearest to the root of its area; it is compared with the boxes
            of all levels, and its term counts for its own.
        pool_size (int): Height and width P of the pooled features.
        sampling_ratio (int): Samples per cell and axis of RoIAlign, at least 1.
        projector (dict, optional): Config of the projector, which is built with
            ``in_channels = C * P * P`` of its level. None compares the flattened features
            themselves.
        share_projector (bool): One projector for all levels, or one for each.
        criterion (dict): Config of the loss.
        scope (str): Where negatives come from: the same ``'image'``, the ``'batch'`` of this
            process, or ``'all_ranks'``.
        background (str): Whether regions of the originals' background that touch no object are
            further negatives: ``'never'``, ``'when_needed'`` (only for boxes with no object of
            another class in scope) or ``'always'``. A criterion without negatives has none.
        num_background (int): Most background regions for each image, at least 1.
        detach_keys (bool): Whether the views' embeddings are targets without gradient.
        sampler (dict, optional): Config of what is compared in place of boxes, such as
            ``PatchSampler``: feature locations. The projectors then take C channels, and there
            are no background regions. Needs ``assign='all'``.
        queue (dict, optional): Config of a :class:`FeatureQueue` of earlier embeddings as further
            negatives, from any image whatever ``scope`` says. Its number of levels, classes and
            channels are filled in. It is filled after the loss, in training mode only.
        num_classes (int, optional): Classes, for the queue; the heads fill it in.
        box_jitter (float): Share of the side, below 0.5, by which the corners of boxes are moved
            at random before pooling, in each view by itself, see :func:`jitter_rois`.
        pair_weights (str, optional): How much a pair counts: ``'iou'``: the product of the IoU of
            its two jittered boxes with the ground truth; ``'area'``: its area in the original
            relative to the mean, from 0.1 to 10; None: each the same.
        key_source (str): Where an object's second embedding comes from: the second ``'view'``, or
            the same ``'image'``: its box is moved by ``box_jitter`` twice, each time by itself, and
            pooled from the same features, at no second pass; or, with ``'view_or_image'``, the view
            where its image has one (``ContrastiveView(prob=...)``), the image where it has none.
        init_cfg (dict, optional): Initialisation.

    Examples:
        >>> contrast = RegionContrast(in_channels=256, criterion=dict(type='NTXentLoss'))
        >>> contrast(feats, data_samples)  # 2N feature maps and samples
        {'loss_contrast_p3': tensor(0.41), ..., 'loss_contrast_p7': tensor(0.46)}
    """

    def __init__(
        self,
        in_channels: Union[int, Sequence[int]] = 256,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        levels: Optional[Sequence[int]] = None,
        level_weights: Optional[Sequence[float]] = None,
        assign: str = 'all',
        pool_size: int = 7,
        sampling_ratio: int = 2,
        projector: Optional[dict] = None,
        share_projector: bool = True,
        criterion: Optional[dict] = None,
        scope: str = 'batch',
        background: str = 'when_needed',
        num_background: int = 4,
        detach_keys: bool = False,
        sampler: Optional[dict] = None,
        queue: Optional[dict] = None,
        num_classes: Optional[int] = None,
        box_jitter: float = 0.0,
        pair_weights: Optional[str] = None,
        key_source: str = 'view',
        init_cfg: Optional[Union[dict, List[dict]]] = None,
    ) -> None:
        check_options(
            key_source, sampler, assign, scope, background, num_background, box_jitter, pair_weights
        )
        super().__init__(
            in_channels=in_channels,
            strides=strides,
            levels=levels,
            assign=assign,
            # a location is a single cell
            pool_size=pool_size if sampler is None else 1,
            sampling_ratio=sampling_ratio,
            projector=projector,
            share_projector=share_projector,
            init_cfg=init_cfg,
        )
        self.level_weights = tuple(level_weights or [1.0] * len(self.levels))
        if len(self.level_weights) != len(self.levels):
            raise ValueError(
                f'RegionContrast got {len(self.level_weights)} level_weights for '
                f'{len(self.levels)} levels; give one for each level used.'
            )
        self.names = [f'loss_contrast_p{int(log2(self.strides[i]))}' for i in self.levels]
        if len(set(self.names)) < len(self.names):
            # strides such as SSD's 64 and 100 are of one power of two
            self.names = [f'loss_contrast_level{i}' for i in self.levels]
        self.key_source = key_source
        self.scope = scope
        self.num_background = num_background
        self.detach_keys = detach_keys
        self.box_jitter = box_jitter
        self.pair_weights = pair_weights
        self.sampler = None if sampler is None else MODELS.build(sampler)

        self.criterion = MODELS.build(criterion or dict(type='NTXentLoss'))
        if not isinstance(self.criterion, PairCriterion):
            raise TypeError(
                f'RegionContrast got {type(self.criterion).__name__} as contrast.criterion, a loss '
                'over pairs of embeddings expected: NTXentLoss, SupConLoss, PatchNCELoss, '
                "SimSiamLoss, PairTripletLoss (MMDetection's TripletLoss is another loss), or one "
                'of your own derived from mmdet_contrast.models.losses.PairCriterion.'
            )
        check_negatives(self.criterion, scope, background, queue)
        # locations have each other as negatives
        uses_background = sampler is None and self.criterion.uses_negatives
        self.background = background if uses_background else 'never'
        self.queue = None
        if queue is not None:
            self.queue = self._build_queue(queue, num_classes)

    def _build_queue(self, queue: dict, num_classes: Optional[int]) -> nn.Module:
        """Build the queue; what its config leaves out is known here."""
        if getattr(self.sampler, 'region', None) == 'outside':
            raise ValueError(
                "RegionContrast got a queue together with PatchSampler(region='outside'), whose "
                'locations have no class to be kept by: set contrast.queue=None, or take another '
                'region.'
            )
        cfg = dict(type='FeatureQueue', num_levels=len(self.levels), num_classes=num_classes)
        if self.assign == 'scale':
            cfg['num_levels'] = 1
        cfg['channels'] = self.embedding_channels
        cfg.update(queue)
        for name, what in (
            ('num_classes', 'the number of classes'),
            ('channels', "the length of the projector's embeddings"),
        ):
            if cfg[name] is None:
                raise ValueError(
                    f'RegionContrast got a queue but not {what}: set contrast.queue.{name}.'
                )
        return MODELS.build(cfg)

    def forward(
        self, feats: Sequence[Tensor], batch_data_samples: List[DetDataSample]
    ) -> Dict[str, Tensor]:
        """Compute the contrastive loss of every level.

        Args:
            feats (Sequence[Tensor]): Features (B, C, H_l, W_l) of every level for the whole
                batch of originals and views.
            batch_data_samples (list[DetDataSample]): B samples as ``ContrastiveDataPreprocessor``
                lays them out, see :func:`collect_pairs`; with ``key_source='image'`` images alone.

        Returns:
            dict[str, Tensor]: ``loss_contrast_p3`` … by level (``loss_contrast_level0`` … where
            the strides are no powers of two of their own); each a finite scalar that is connected
            to the branch's parameters, 0 where there is nothing to contrast.
        """
        if self.criterion.loss_weight == 0:
            zero = feats[0].new_zeros(()) + sum(p.sum() for p in self.parameters()) * 0
            return {name: zero for name in self.names}

        rows_by_level = (self._box_rows if self.sampler is None else self._patch_rows)(
            feats, batch_data_samples
        )
        divisors = 2 * reduce_mean(torch.stack([rows.total for rows in rows_by_level]))
        losses = {}
        for i, (name, weight, rows) in enumerate(
            zip(self.names, self.level_weights, rows_by_level)
        ):
            options = {} if rows.weights is None else dict(weights=rows.weights)
            background, background_mask = self._add_queue(rows, i)
            loss = self.criterion(
                rows.query,
                rows.key,
                labels=rows.labels,
                groups=rows.groups,
                anchors=rows.anchors,
                background=background,
                background_mask=background_mask,
                # a divisor of 0 comes with a sum of 0
                avg_factor=divisors[i].clamp(min=1e-6),
                **options,
            )
            # with 'all' every box is on every level, and the levels are averaged; with 'scale'
            # it is an anchor once
            losses[name] = loss * (weight / len(self.levels) if self.assign == 'all' else weight)
        if self.queue is not None and self.training:
            self._enqueue(rows_by_level)
        return losses

    def _box_rows(
        self, feats: Sequence[Tensor], batch_data_samples: List[DetDataSample]
    ) -> List[_Rows]:
        """Embed the boxes; return what each level compares."""
        pairs = COLLECTORS[self.key_source](batch_data_samples, feats[0].device)
        level = self.assign_levels(pairs.query_rois)
        pooled = [
            jitter_rois(rois, self.box_jitter, batch_data_samples)
            for rois in (pairs.query_rois, pairs.key_rois)
        ]
        weights = self._weigh(pairs, *pooled)
        count = len(level)
        embeddings = self.embed(feats, torch.cat(pooled), level.repeat(2))
        query, key = embeddings[:count], embeddings[count:]
        if self.detach_keys:
            key = key.detach()
        total = query.new_tensor(float(count), dtype=torch.float32)
        if weights is not None:
            total = weights.sum()

        labels, groups = pairs.labels, pairs.query_rois[:, 0].long()
        background = background_groups = anchors = None
        # across ranks, all must take part in the same collectives, needed here or not
        if self._gathers() or self._needs_background(labels, groups).any():
            background, background_groups = self._embed_background(feats, batch_data_samples)
        if self._gathers():
            (query, key), (labels, level), weights, anchors = gather_pairs(
                (query, key), (labels, level), weights
            )
            if background is not None:
                background, _ = gather_rows(background)
        mask = self._background_mask(labels, groups, background, background_groups)

        rows = []
        for i in range(len(self.levels)):
            column, chosen = i, anchors
            if self.assign == 'scale':
                # an anchor on its own level alone, where it meets the boxes of all levels
                column, chosen = 0, level == i
                chosen = chosen if anchors is None else chosen & anchors
            rows.append(
                _Rows(
                    query[:, column],
                    key[:, column],
                    labels,
                    groups if self.scope == 'image' else None,
                    weights,
                    chosen,
                    total,
                    None if background is None else background[:, i],
                    mask,
                )
            )
        return rows

    def _patch_rows(
        self, feats: Sequence[Tensor], batch_data_samples: List[DetDataSample]
    ) -> List[_Rows]:
        """Embed feature locations; return what each level compares."""
        used = [feats[i] for i in self.levels]
        strides = [self.strides[i] for i in self.levels]
        out = []
        for i, (feat, places) in enumerate(
            zip(used, self.sampler(used, strides, batch_data_samples))
        ):
            height, width = feat.shape[2:]
            images = torch.cat((places.original, places.view))
            cells = (images * height + places.y.repeat(2)) * width + places.x.repeat(2)
            embedded = self.embed_cells(feat, cells, i)
            count = len(places.y)
            query, key = embedded[:count], embedded[count:]
            if self.detach_keys:
                key = key.detach()
            total = query.new_tensor(float(count), dtype=torch.float32)
            labels, groups, anchors = places.labels, places.original, None
            if self._gathers():
                (query, key), (labels,), _, anchors = gather_pairs((query, key), (labels,))
            groups = groups if self.scope == 'image' else None
            out.append(_Rows(query, key, labels, groups, None, anchors, total, None, None))
        return out

    def _gathers(self) -> bool:
        return self.scope == 'all_ranks' and get_world_size() > 1

    def _weigh(self, pairs: Pairs, query_rois: Tensor, key_rois: Tensor) -> Optional[Tensor]:
        """Return the (M,) weights of pairs of which these regions are pooled."""
        boxes = pairs.query_rois[:, 1:]
        if self.pair_weights == 'iou':
            return iou_weights(boxes, query_rois[:, 1:], pairs.key_rois[:, 1:], key_rois[:, 1:])
        return area_weights(boxes) if self.pair_weights == 'area' else None

    def _add_queue(self, rows: _Rows, position: int) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """Return a level's background regions and queue entries, and who is compared with them."""
        if self.queue is None:
            return rows.background, rows.background_mask
        entries, mask = self.queue.negatives(self._queue_level(position), rows.labels)
        if rows.background is None:
            return (entries, mask) if len(entries) else (None, None)
        joined = torch.cat((rows.background, entries.to(rows.background.dtype)))
        return joined, torch.cat((rows.background_mask, mask), dim=1)

    def _queue_level(self, position: int) -> int:
        """Return the level of the queue: by size, boxes of all levels are compared."""
        return position if self.assign == 'all' else 0

    @torch.no_grad()
    def _enqueue(self, rows_by_level: List[_Rows]) -> None:
        """Put the embeddings of all ranks into the queue, on every rank in the same order."""
        store = self.queue.store
        embeddings, labels, levels = [], [], []
        for i, rows in enumerate(rows_by_level if self.assign == 'all' else rows_by_level[:1]):
            for name, kept in (('keys', rows.key), ('queries', rows.query)):
                if store in (name, 'both'):
                    embeddings.append(kept.detach())
                    labels.append(rows.labels)
                    levels.append(torch.full_like(rows.labels, self._queue_level(i)))
        joined, codes = torch.cat(embeddings), torch.stack((torch.cat(labels), torch.cat(levels)))
        if not self._gathers():
            joined, codes = gather_rows(joined)[0], gather_rows(codes.T)[0].T
        self.queue.enqueue(joined, codes[1], codes[0])

    def _needs_background(self, labels: Tensor, groups: Tensor) -> Tensor:
        """Return (M,) bool: which pairs are to be compared with background regions."""
        if self.background != 'when_needed':
            return torch.full_like(labels, self.background == 'always', dtype=torch.bool)
        # unknown classes (-1) differ from one another, as in the criteria; a row not from itself
        other = (labels[:, None] != labels) | (labels < 0)
        other.fill_diagonal_(False)
        if self.scope == 'image':
            other &= groups[:, None] == groups
        return ~other.any(dim=1)

    def _embed_background(
        self, feats: Sequence[Tensor], batch_data_samples: List[DetDataSample]
    ) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """Return (K, L, D) embeddings of background regions and (K,) their images."""
        if self.background == 'never':
            return None, None
        originals = [s for s in batch_data_samples if not s.metainfo.get('view', 0)]
        occupied = [occupied_boxes(sample) for sample in originals]
        shapes = [sample.img_shape for sample in originals]
        rois = bbox2roi(sample_background_boxes(occupied, shapes, self.num_background))
        return self.embed(feats, rois, None), rois[:, 0].long()

    def _background_mask(
        self,
        labels: Tensor,
        groups: Tensor,
        background: Optional[Tensor],
        background_groups: Optional[Tensor],
    ) -> Optional[Tensor]:
        """Return (M, K) bool: which pair is compared with which background region."""
        if background is None:
            return None
        mask = self._needs_background(labels, groups)[:, None].expand(-1, len(background))
        if self.scope == 'image':
            mask = mask & (groups[:, None] == background_groups)
        return mask
