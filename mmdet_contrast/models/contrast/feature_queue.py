"""Embeddings of earlier batches as further negatives."""

import logging
from typing import Any, Dict, List, Tuple

import torch
from mmdet.registry import MODELS
from mmengine.logging import print_log
from torch import Tensor, nn


@MODELS.register_module()
class FeatureQueue(nn.Module):
    """Memory bank of embeddings by level and class, first in, first out.

    Small batches hold few objects of other classes. The bank keeps the last ``size`` embeddings
    of every class and level, without gradient, and hands them out as negatives that cost no
    forward pass (the queue of MoCo, arXiv 1911.05722, kept by class as in the semi-supervised
    segmentation of arXiv 2104.13415, so that a frequent class cannot push a rare one out). An
    anchor of known class is compared with the entries of the other classes, one without class
    (label -1) with all. Entries come from the weights of earlier iterations and age by
    ``size / (objects of the class in a batch)`` iterations: keep ``size`` small where weights
    change fast.

    The entries are buffers: they are saved in checkpoints and come back with ``resume``. A bank of
    another shape is not loaded: with a warning, this one stays as it is, empty at first. All ranks
    must enqueue the same rows in the same order (:class:`RegionContrast` joins the ranks' rows
    first); the bank is then the same on every rank. It holds ``num_levels * num_classes * size *
    channels`` float32 numbers.

    Args:
        num_levels (int): Levels, each with entries of its own. Filled in by ``RegionContrast``.
        num_classes (int): Classes. Filled in from the head.
        channels (int): Length D of the embeddings. Filled in from the projector.
        size (int): Entries for each class and level.
        store (str): What is kept of a batch: ``'keys'`` (the views' embeddings), ``'queries'``
            (the originals') or ``'both'``.

    Examples:
        >>> queue = FeatureQueue(num_levels=1, num_classes=3, channels=128, size=16)
        >>> rows, labels = torch.randn(5, 128), torch.tensor([0, 2, 2, 1, 0])
        >>> queue.enqueue(rows, torch.zeros_like(labels), labels)
        >>> negatives, mask = queue.negatives(0, torch.tensor([2, -1]))
        >>> negatives.shape, mask.sum(dim=1)
        (torch.Size([5, 128]), tensor([3, 5]))
    """

    def __init__(
        self,
        num_levels: int,
        num_classes: int,
        channels: int,
        size: int = 64,
        store: str = 'keys',
    ) -> None:
        super().__init__()
        if min(num_levels, num_classes, channels, size) < 1:
            raise ValueError(
                f'FeatureQueue got num_levels={num_levels}, num_classes={num_classes}, '
                f'channels={channels} and size={size}; at least 1 expected of each.'
            )
        if store not in ('keys', 'queries', 'both'):
            raise ValueError(
                f"FeatureQueue got store={store!r}, one of ('keys', 'queries', 'both') expected."
            )
        self.store = store
        self.register_buffer('entries', torch.zeros(num_levels, num_classes, size, channels))
        for name in ('pointer', 'filled'):
            self.register_buffer(name, torch.zeros(num_levels, num_classes, dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, rows: Tensor, levels: Tensor, labels: Tensor) -> None:
        """Add embeddings; each takes the place of the oldest of its level and class.

        Args:
            rows (Tensor): (K, D) embeddings, oldest first; K may be 0.
            levels (Tensor): (K,) long, level of each.
            labels (Tensor): (K,) long, class of each. Rows without a class (-1) are left out, and
                those that are not finite: one overflow would spoil the losses of many iterations.

        Raises:
            ValueError: If the embeddings or a class index do not fit.
        """
        num_levels, num_classes, size, channels = self.entries.shape
        if rows.dim() != 2 or rows.shape[1] != channels:
            raise ValueError(
                f'FeatureQueue(channels={channels}) got embeddings of shape {tuple(rows.shape)}, '
                f'(K, {channels}) expected: set contrast.queue.channels to the length of the '
                "projector's embeddings."
            )
        known = (labels >= 0) & rows.isfinite().all(dim=1)
        rows, levels, labels = rows[known], levels[known], labels[known]
        if len(rows) == 0:
            return
        if labels.max() >= num_classes:
            raise ValueError(
                f'FeatureQueue(num_classes={num_classes}) got the class index '
                f'{int(labels.max())}: set contrast.queue.num_classes to the number of classes of '
                'the data set.'
            )
        # slots of one level and class are adjacent after a stable sort, in their order of arrival
        slots, order = (levels * num_classes + labels).sort(stable=True)
        counts = slots.bincount(minlength=num_levels * num_classes)
        rank = torch.arange(len(slots), device=slots.device) - (counts.cumsum(0) - counts)[slots]
        # what this very call would push out again is not written: no place is written twice
        kept = rank >= counts[slots] - size
        slots, order, rank = slots[kept], order[kept], rank[kept]
        place = (self.pointer.flatten()[slots] + rank) % size
        # not through a flattened view, which is a copy where memory is laid out as channels_last
        self.entries[slots // num_classes, slots % num_classes, place] = rows[order].to(
            self.entries.dtype
        )
        counts = counts.view_as(self.pointer)
        self.pointer.copy_((self.pointer + counts) % size)
        self.filled.copy_((self.filled + counts).clamp(max=size))

    def negatives(self, level: int, labels: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the entries of a level and which of them each anchor is compared with.

        Args:
            level (int): The level.
            labels (Tensor): (M,) class of each anchor, -1 where unknown.

        Returns:
            tuple[Tensor, Tensor]: (K, D) entries, a copy without gradient, K = 0 at first; and
            (M, K) bool, True where the entry's class is another one or the anchor has none.
        """
        _, num_classes, size, _ = self.entries.shape
        device = self.entries.device
        used = torch.arange(size, device=device) < self.filled[level][:, None]
        classes = torch.arange(num_classes, device=device)[:, None].expand(-1, size)[used]
        mask = (labels[:, None] != classes) | (labels < 0)[:, None]
        return self.entries[level][used], mask

    def _load_from_state_dict(
        self,
        state_dict: Dict[str, Any],
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: List[str],
        unexpected_keys: List[str],
        error_msgs: List[str],
    ) -> None:
        """Take all of a bank or nothing: counts without their entries would stand for zeros."""
        own = {f'{prefix}{name}': buffer.shape for name, buffer in self.named_buffers()}
        given = {name: state_dict[name].shape for name in own if name in state_dict}
        if given and given != own:
            shape = tuple(given.get(f'{prefix}entries', ()))
            print_log(
                f'FeatureQueue has entries of shape {tuple(self.entries.shape)} (levels, classes, '
                f'size, channels) and the checkpoint {shape or None}: they are not loaded, the '
                'queue fills anew. Set contrast.queue as it was to go on with them.',
                logger='current',
                level=logging.WARNING,
            )
            return
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
