"""The contrastive branch: pool, project, compare."""

from math import log2
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.distributed as dist
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, get_box_tensor
from mmdet.utils import reduce_mean
from mmengine.dist import get_rank, get_world_size
from mmengine.model import BaseModule, ModuleList
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from .background import sample_background_boxes
from .region_pool import pool_regions

_CHOICES = dict(
    assign=('all', 'scale'),
    scope=('image', 'batch', 'all_ranks'),
    background=('never', 'when_needed', 'always'),
)


class _Pairs(NamedTuple):
    """The boxes that take part; rows correspond."""

    query_rois: Tensor  # (M, 5): position in the batch, box in the original
    key_rois: Tensor  # (M, 5): position in the batch, box in the view
    labels: Tensor  # (M,)


@MODELS.register_module()
class RegionContrast(BaseModule):
    """Contrast the features of each object in an image with those in the image's second view.

    Per pyramid level: the objects' regions are pooled from both views (RoIAlign), flattened,
    projected and handed to ``criterion``. The loss of a level is multiplied by its weight and
    divided by the number of levels, so the sum over the levels is their (weighted) mean.

    Under distributed training the terms are divided by the mean number of anchors over the ranks,
    so that the averaged gradients are those of one process with the joined batch.

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
        background (str): Whether regions of the background that touch no object are further
            negatives: ``'never'``, ``'when_needed'`` (only for boxes with no object of another
            class in scope) or ``'always'``.
        num_background (int): Background regions for each image.
        detach_keys (bool): Whether the views' embeddings are targets without gradient.
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
        init_cfg: Optional[Union[dict, List[dict]]] = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        for name, value in (('assign', assign), ('scope', scope), ('background', background)):
            if value not in _CHOICES[name]:
                raise ValueError(
                    f'RegionContrast got {name}={value!r}, one of {_CHOICES[name]} expected.'
                )
        if pool_size < 1 or sampling_ratio < 1:
            raise ValueError(
                f'RegionContrast got pool_size={pool_size} and sampling_ratio={sampling_ratio}, '
                'at least 1 expected of both.'
            )
        self.strides = tuple(strides)
        self.levels = tuple(range(len(strides)) if levels is None else levels)
        if not self.levels or not set(self.levels) <= set(range(len(self.strides))):
            raise ValueError(
                f'RegionContrast got levels={levels}, indices from 0 to {len(self.strides) - 1} '
                f'expected: the strides are {self.strides}.'
            )
        self.level_weights = tuple(level_weights or [1.0] * len(self.levels))
        if len(self.level_weights) != len(self.levels):
            raise ValueError(
                f'RegionContrast got {len(self.level_weights)} level_weights for '
                f'{len(self.levels)} levels; give one for each level used.'
            )
        self.names = [f'loss_contrast_p{int(log2(self.strides[i]))}' for i in self.levels]
        self.assign = assign
        self.pool_size = pool_size
        self.sampling_ratio = sampling_ratio
        self.scope = scope
        self.background = background
        self.num_background = num_background
        self.detach_keys = detach_keys

        if isinstance(in_channels, int):
            in_channels = [in_channels] * len(self.strides)
        channels = [in_channels[i] for i in self.levels]
        if len(set(channels)) > 1 and (projector is None or share_projector):
            raise ValueError(
                f'RegionContrast got levels of {tuple(channels)} channels, which one projector, or '
                'none, cannot make comparable: set bbox_head.contrast.projector='
                "dict(type='MLPProjector') and bbox_head.contrast.share_projector=False."
            )
        self.share_projector = share_projector
        self.projectors = ModuleList()
        if projector is not None:
            for c in channels[:1] if share_projector else channels:
                cfg = dict(dict(type='MLPProjector', in_channels=c * pool_size**2), **projector)
                self.projectors.append(MODELS.build(cfg))
        self.criterion = MODELS.build(criterion or dict(type='NTXentLoss'))

    def forward(
        self, feats: Sequence[Tensor], batch_data_samples: List[DetDataSample]
    ) -> Dict[str, Tensor]:
        """Compute the contrastive loss of every level.

        Args:
            feats (Sequence[Tensor]): Features (B, C, H_l, W_l) of every level for the whole
                batch of originals and views.
            batch_data_samples (list[DetDataSample]): B samples as ``ContrastiveDataPreprocessor``
                lays them out.

        Returns:
            dict[str, Tensor]: ``loss_contrast_p3`` … by level; each a finite scalar that is
            connected to the branch's parameters, 0 where there is nothing to contrast.
        """
        if self.criterion.loss_weight == 0:
            zero = feats[0].new_zeros(()) + sum(p.sum() for p in self.parameters()) * 0
            return {name: zero for name in self.names}

        pairs = self._collect(batch_data_samples, feats[0].device)
        count = len(pairs.labels)
        level = self._assign_levels(pairs.query_rois)
        embeddings = self._embed(
            feats, torch.cat((pairs.query_rois, pairs.key_rois)), level.repeat(2)
        )
        query, key = embeddings[:count], embeddings[count:]
        if self.detach_keys:
            key = key.detach()

        labels, groups = pairs.labels, pairs.query_rois[:, 0].long()
        gathers = self.scope == 'all_ranks' and get_world_size() > 1
        background = background_groups = anchors = None
        # across ranks, all must take part in the same collectives, needed here or not
        if gathers or self._needs_background(labels, groups).any():
            background, background_groups = self._embed_background(feats, batch_data_samples)
        if gathers:
            joined, ranks = _gather_rows(torch.cat((query, key), dim=-1))
            query, key = joined.chunk(2, dim=-1)
            codes, _ = _gather_rows(torch.stack((labels, level), dim=1))
            labels, level = codes.unbind(1)
            anchors = ranks == get_rank()
            if background is not None:
                background, _ = _gather_rows(background)
        background_mask = self._background_mask(labels, groups, background, background_groups)

        avg_factor = 2 * reduce_mean(query.new_tensor(float(count), dtype=torch.float32))
        losses = {}
        for i, (name, weight) in enumerate(zip(self.names, self.level_weights)):
            if self.assign == 'all':
                # every box is on every level; the levels are averaged
                column, chosen, weight = i, anchors, weight / len(self.levels)
            else:
                # every box is once an anchor, on its level, and meets those of all levels
                column, chosen = 0, level == i
                chosen = chosen if anchors is None else chosen & anchors
            loss = self.criterion(
                query[:, column],
                key[:, column],
                labels=labels,
                groups=groups if self.scope == 'image' else None,
                anchors=chosen,
                background=None if background is None else background[:, i],
                background_mask=background_mask,
                avg_factor=avg_factor.clamp(min=1),
            )
            losses[name] = loss * weight
        return losses

    @staticmethod
    def _collect(batch_data_samples: List[DetDataSample], device: torch.device) -> _Pairs:
        """Pair the boxes of every view with those of its original."""
        first, second, labels = [], [], []
        for position, sample in enumerate(batch_data_samples):
            if not sample.metainfo.get('view', 0):
                continue
            original = batch_data_samples[sample.view_of].gt_instances
            view = sample.gt_instances
            valid = original.get('view_valid', None)
            if valid is None:
                valid = torch.ones(len(original), dtype=torch.bool, device=device)
            for rois, where, instances in (
                (first, sample.view_of, original),
                (second, position, view),
            ):
                boxes = get_box_tensor(instances.bboxes)[valid].float()
                rois.append(torch.cat((boxes.new_full((len(boxes), 1), where), boxes), dim=1))
            labels.append(original.labels[valid])
        if not labels:
            empty = torch.zeros((0, 5), device=device)
            return _Pairs(empty, empty, torch.zeros(0, dtype=torch.long, device=device))
        return _Pairs(torch.cat(first), torch.cat(second), torch.cat(labels))

    def _assign_levels(self, rois: Tensor) -> Tensor:
        """Return for each box the position, among the levels used, of the one of its size."""
        if self.assign == 'all':
            return torch.zeros(len(rois), dtype=torch.long, device=rois.device)
        sizes = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).clamp(min=1).sqrt()
        anchors = rois.new_tensor([4.0 * self.strides[i] for i in self.levels])
        return (sizes.log2()[:, None] - anchors.log2()).abs().argmin(dim=1)

    def _embed(self, feats: Sequence[Tensor], rois: Tensor, level: Optional[Tensor]) -> Tensor:
        """Pool and project regions.

        Args:
            feats (Sequence[Tensor]): Features of every level.
            rois (Tensor): (K, 5) regions.
            level (Tensor, optional): (K,) positions of the levels of the boxes with
                ``assign='scale'``; None embeds on every level whatever ``assign`` says.

        Returns:
            Tensor: (K, L, D) embeddings, or (K, 1, D) where each region is on one level.
        """
        one_level = self.assign == 'scale' and level is not None
        pooled, order = [], []
        for i, index in enumerate(self.levels):
            chosen = (level == i).nonzero()[:, 0] if one_level else None
            regions = rois if chosen is None else rois[chosen]
            pooled.append(self._pool(feats[index], regions, self.strides[index]))
            order.append(chosen)
        if not self.projectors:
            embedded = pooled
        elif self.share_projector:
            joined = self.projectors[0](torch.cat(pooled))
            embedded = joined.split([len(x) for x in pooled])
        else:
            embedded = [project(x) for project, x in zip(self.projectors, pooled)]
        if not one_level:
            return torch.stack(tuple(embedded), dim=1)
        return torch.cat(tuple(embedded))[torch.cat(order).argsort()][:, None]

    def _pool(self, feat: Tensor, rois: Tensor, stride: int) -> Tensor:
        """Return the flattened features (K, C * P * P) of regions on a level."""
        pooled = pool_regions(feat, rois, self.pool_size, stride, self.sampling_ratio)
        return pooled.flatten(1)

    def _needs_background(self, labels: Tensor, groups: Tensor) -> Tensor:
        """Return (M,) bool: which pairs are to be compared with background regions."""
        if self.background != 'when_needed':
            return torch.full_like(labels, self.background == 'always', dtype=torch.bool)
        other = labels[:, None] != labels
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
        occupied, shapes = [], []
        for sample in originals:
            boxes = [get_box_tensor(sample.gt_instances.bboxes)]
            ignored = sample.get('ignored_instances', None)
            if ignored is not None and 'bboxes' in ignored:
                boxes.append(get_box_tensor(ignored.bboxes))
            occupied.append(torch.cat(boxes))
            shapes.append(sample.img_shape)
        rois = bbox2roi(sample_background_boxes(occupied, shapes, self.num_background))
        return self._embed(feats, rois, None), rois[:, 0].long()

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


def _gather_rows(rows: Tensor) -> Tuple[Tensor, Tensor]:
    """Join the rows of all ranks, differentiably; ranks may bring different numbers.

    Returns:
        tuple[Tensor, Tensor]: the rows in the order of the ranks, and the rank of each.
    """
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    counts = torch.cat(counts).tolist()
    # every rank sends a tensor of the same, non-empty shape: no rank may skip a collective
    padding = rows.new_zeros((max(1, max(counts)) - len(rows), *rows.shape[1:]))
    parts = all_gather(torch.cat((rows, padding)))
    joined = torch.cat([part[:count] for part, count in zip(parts, counts)])
    ranks = torch.arange(len(counts), device=rows.device)
    return joined, ranks.repeat_interleave(torch.tensor(counts, device=rows.device))
