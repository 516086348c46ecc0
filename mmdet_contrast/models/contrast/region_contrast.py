"""The contrastive branch: sample, pool, project, compare."""

from math import log2
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import reduce_mean
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import Tensor

from ..losses import PairBatch, PairCriterion, Terms
from .gather import gather_batch, gather_rows
from .region_pool import pool_regions

SCOPES = ('image', 'batch', 'all_ranks')
AVERAGES = ('classes', 'objects')
# Share of the past in the running mean of the trust: about twenty iterations.
_MOMENTUM = 0.95


@MODELS.register_module()
class RegionContrast(BaseModule):
    """Contrast the features of each object in an image with those in the image's second view.

    A ``sampler`` chooses pairs of regions; they are pooled on every pyramid level (RoIAlign),
    flattened, projected and compared by ``criterion``, all levels in one call. The loss of a level
    is divided by the number of levels, so that their sum is the mean.

    **Trust.** A contrastive loss that learns nothing pulls on the detector all the same. So each
    level has a trust t in [0, 1], the running mean of 1 - loss / chance: the share of the
    information about the objects' classes that their embeddings are shown to hold
    (:meth:`FeatureQueue.tell_classes`); without a queue, or with one class, of that about which key
    belongs to which query. The gradient into the detector's features is that of the mean over the
    levels with the weights t², times the mean of t² with these weights: until it has learned
    something from the features, the branch only watches. Projector and criterion learn with their
    whole gradient. ``docs/contrast.md`` has the formulas and reasons.

    Under distributed training the sums and their divisors are those of all ranks, so that the
    averaged gradients are those of one process with the joined batch.

    Args:
        in_channels (int | Sequence[int]): Channels C of every level, or of each; where they differ
            each level has a projector of its own.
        strides (Sequence[int]): Stride of every level in pixels.
        num_classes (int): Number of classes; the heads fill it in.
        sampler (dict, optional): Config of what is compared: ``ViewBoxes``, the default type,
            ``JitteredBoxes`` or ``PatchSampler``.
        projector (dict, optional): Config of the projector, by default ``MLPProjector``; built with
            the ``in_channels`` of the pooled regions.
        share_projector (bool): One projector for all levels, or one for each.
        criterion (dict, optional): Config of the loss, by default ``NTXentLoss``.
        average (str): ``'classes'``: the mean over the classes of the mean over their objects, so
            that a rare class counts as much as a frequent one, as it does in AP; or ``'objects'``:
            the mean over all objects, as the losses are published. Objects of no known class
            (label -1) are one class.
        scope (str): Where negatives come from: the same ``'image'``, the ``'batch'`` of this
            process, or ``'all_ranks'``.
        queue (dict, optional): Config of a ``FeatureQueue``, whose earlier embeddings are further
            negatives, whatever the scope.
        trust (bool): Whether the gradient into the detector is weighted by trust, or passed on
            whole. Without effect for criteria that have no chance level (SimSiam, triplet).

    Examples:
        >>> contrast = RegionContrast(in_channels=256)
        >>> contrast(feats, data_samples)
        {'loss_contrast_p3': tensor(0.41), ..., 'loss_contrast_p7': tensor(0.46),
         'contrast_trust': tensor(0.12)}
    """

    def __init__(
        self,
        in_channels: Union[int, Sequence[int]] = 256,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        num_classes: int = 80,
        sampler: Optional[dict] = None,
        projector: Optional[dict] = None,
        share_projector: bool = True,
        criterion: Optional[dict] = None,
        average: str = 'classes',
        scope: str = 'batch',
        queue: Optional[dict] = None,
        trust: bool = True,
    ) -> None:
        super().__init__()
        # anything else would silently be one of them
        if scope not in SCOPES:
            raise ValueError(f'contrast.scope={scope!r} given, one of {SCOPES} expected.')
        if average not in AVERAGES:
            raise ValueError(f'contrast.average={average!r} given, one of {AVERAGES} expected.')
        self.strides = strides
        self.names = [f'loss_contrast_p{int(log2(stride))}' for stride in strides]
        if len(set(self.names)) < len(self.names):
            # strides such as SSD's 64 and 100 are of one power of two
            self.names = [f'loss_contrast_level{i}' for i in range(len(strides))]
        self.num_classes = num_classes
        self.average = average
        self.scope = scope
        self.criterion: PairCriterion = MODELS.build({'type': 'NTXentLoss', **(criterion or {})})
        self.sampler = MODELS.build({'type': 'ViewBoxes', **(sampler or {})})
        if not self.criterion.uses_negatives:
            self.sampler.background = 0

        if isinstance(in_channels, int):
            in_channels = [in_channels] * len(strides)
        projector = {'type': 'MLPProjector', **(projector or {})}
        projector['in_channels'] = max(in_channels) * self.sampler.pool_size**2
        if not share_projector or len(set(in_channels)) > 1:
            projector['num_levels'] = len(strides)
        self.projector = MODELS.build(projector)
        self.queue = None
        if queue is not None and self.criterion.uses_negatives:
            defaults = dict(
                type='FeatureQueue',
                num_levels=len(strides),
                num_classes=num_classes,
                channels=self.projector.out_channels,
            )
            self.queue = MODELS.build({**defaults, **queue})
        trusted = trust and self.criterion.has_chance_level
        self.register_buffer('trust', torch.zeros(len(strides)) if trusted else None)

    @property
    def wants_views(self) -> bool:
        """bool: Whether images without a second view cannot be trained on."""
        return self.sampler.needs_views and self.criterion.loss_weight != 0

    def forward(
        self, feats: Sequence[Tensor], batch_data_samples: List[DetDataSample]
    ) -> Dict[str, Tensor]:
        """Compute the contrastive loss of every level.

        Args:
            feats (Sequence[Tensor]): Features (B, C_l, H_l, W_l) of every level for the whole
                batch of originals and views.
            batch_data_samples (list[DetDataSample]): The B samples as
                ``ContrastiveDataPreprocessor`` lays them out; with ``JitteredBoxes`` images alone.

        Returns:
            dict[str, Tensor]: ``loss_contrast_p3`` … by level (``loss_contrast_level0`` … where
            the strides are no powers of two of their own), each a finite scalar that is connected
            to the branch's parameters, 0 where there is nothing to contrast; and
            ``contrast_trust``, a monitor: the trust by which this step's gradient is weighted.
        """
        weight = self.criterion.loss_weight / len(self.strides)
        if weight == 0:
            zero = feats[0].new_zeros(()) + sum(p.sum() for p in self.parameters()) * 0
            return {name: zero for name in self.names}

        sampler = self.sampler
        batch = self._separate_images(sampler(feats, self.strides, batch_data_samples))
        pooled = pool_regions(
            feats, batch.rows, self.strides, sampler.pool_size, sampler.sampling_ratio
        )
        if self.trust is not None:
            factors, trust = self._level_factors()
            if pooled.requires_grad:
                pooled.register_hook(lambda grad: grad * factors[:, None, None])
        batch = batch._replace(rows=self.projector(pooled))
        if self.scope == 'all_ranks' and get_world_size() > 1:
            batch = gather_batch(batch)
        terms = self.criterion.compare(self._add_queue(batch))
        labels = batch.labels.repeat(1, terms.values.shape[1] // max(batch.num_pairs, 1))
        weights = self._weights(labels, terms)
        total = (terms.values * weights).sum(dim=1)
        shown, chance = self._shown(labels, terms)
        sums = reduce_mean(torch.stack((weights, shown * weights, chance * weights)).sum(dim=2))
        divisors = sums[0].clamp(min=1e-6) / weight
        losses = dict(zip(self.names, (total / divisors).unbind()))
        if self.trust is not None:
            losses['contrast_trust'] = trust
            if self.training:
                self._update_trust(*sums[1:])
        if self.queue is not None and self.training:
            self._enqueue(batch)
        return losses

    def _level_factors(self) -> Tuple[Tensor, Tensor]:
        """Return the (L,) factors of the gradients, and the trust that is logged."""
        squares = self.trust.square()
        # over the mean, not the sum: the losses are divided by the number of levels already
        weights = squares / squares.mean().clamp(min=1e-8)
        trust = (weights * squares).mean()
        return weights * trust, trust

    def _weights(self, labels: Tensor, terms: Terms) -> Tensor:
        """Return the (L, A) weights of the terms; if by classes, 1 for each class of all ranks."""
        weights = terms.counted.to(terms.values.dtype)
        if self.average == 'classes':
            index, weights = torch.broadcast_tensors(labels + 1, weights)
            # not 0: terms that do not count are divided, too
            counts = weights.new_full((len(index), self.num_classes + 1), 1e-12)
            all_reduce(counts.scatter_add_(1, index, weights))
            weights = weights / counts.gather(1, index)
        return weights.expand_as(terms.values)

    def _shown(self, labels: Tensor, terms: Terms) -> Tuple[Tensor, Tensor]:
        """Return the (L, A) losses by which trust is measured, and what they are by chance."""
        if self.queue is not None and self.num_classes > 1 and terms.logits is not None:
            logits = terms.logits.detach()[:, :, -self.queue.entries.shape[1] :]
            return self.queue.tell_classes(logits, labels)
        values = terms.values.detach()
        return values, values if terms.candidates is None else terms.chance

    @torch.no_grad()
    def _update_trust(self, total: Tensor, chance: Tensor) -> None:
        """Move the trust towards what the batch shows; a level that shows nothing keeps its own."""
        shown = (1 - total / chance).clamp(0, 1)
        # without negatives it is 0 / 0
        self.trust.lerp_(torch.where(shown.isnan(), self.trust, shown), 1 - _MOMENTUM)

    def _separate_images(self, batch: PairBatch) -> PairBatch:
        """Compare within each image alone if the scope says so."""
        if self.scope != 'image':
            return batch
        image, mask = batch.rows[:1, :, 0], batch.fallback_mask
        groups, count = image[:, : batch.num_pairs], 2 * batch.num_pairs
        if mask is not None:
            mask = mask & (groups[..., None] == image[:, None, count:])
        return batch._replace(groups=groups, fallback_mask=mask)

    def _add_queue(self, batch: PairBatch) -> PairBatch:
        """Append the queue's entries to the rows that are negatives only."""
        if self.queue is None:
            return batch
        rows = torch.cat((batch.rows, self.queue.entries.to(batch.rows.dtype)), dim=1)
        return batch._replace(rows=rows, queue_mask=self.queue.mask(batch.labels))

    @torch.no_grad()
    def _enqueue(self, batch: PairBatch) -> None:
        """Put the keys of all ranks into the queue, on every rank in the same order."""
        keys = batch.rows[:, batch.num_pairs : 2 * batch.num_pairs]
        labels = torch.where(batch.valid, batch.labels, -1)
        if self.scope != 'all_ranks' and get_world_size() > 1:
            keys, _ = gather_rows(keys.transpose(0, 1))
            labels, _ = gather_rows(labels.T)
            keys, labels = keys.transpose(0, 1), labels.T
        self.queue.enqueue(keys, labels)
