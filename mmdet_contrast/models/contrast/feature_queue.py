"""Embeddings of earlier batches as further negatives."""

from typing import Optional

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class FeatureQueue(nn.Module):
    """Memory bank of embeddings by level and class, first in, first out.

    Small batches hold few objects of other classes. The bank keeps the last ``size`` embeddings
    of every class and level, without gradient, and hands them out as negatives that cost no
    forward pass (the queue of MoCo, arXiv 1911.05722, kept by class as in the semi-supervised
    segmentation of arXiv 2104.13415, so that a frequent class cannot push a rare one out). Entries
    come from the weights of earlier iterations: keep ``size`` small where weights change fast.

    The bank is not saved in checkpoints and fills anew after resuming. All ranks must enqueue the
    same rows in the same order (:class:`RegionContrast` joins the ranks' rows first). It holds
    ``num_levels * num_classes * size * channels`` float32 numbers.

    Args:
        num_levels (int): Levels, each with entries of its own. Filled in by ``RegionContrast``.
        num_classes (int): Classes. Filled in from the head.
        channels (int): Length D of the embeddings. Filled in from the projector.
        size (int): Entries for each class and level.

    Examples:
        >>> queue = FeatureQueue(num_levels=1, num_classes=3, channels=128, size=16)
        >>> labels = torch.tensor([[0, 2, 2, 1, 0]])
        >>> queue.enqueue(torch.randn(1, 5, 128), labels)
        >>> queue.mask(torch.tensor([[2, -1]])).sum(dim=2)
        tensor([[3, 5]])
    """

    _entries: Tensor
    _count: Tensor

    def __init__(self, num_levels: int, num_classes: int, channels: int, size: int = 64) -> None:
        super().__init__()
        self.num_classes, self.size = num_classes, size
        # the last place of a level takes what is not kept, and is never read
        places = num_classes * size + 1
        entries = torch.zeros(num_levels, places, channels)
        self.register_buffer('_entries', entries, persistent=False)
        # embeddings that came so far
        count = torch.zeros(num_levels, num_classes, dtype=torch.long)
        self.register_buffer('_count', count, persistent=False)

    @property
    def entries(self) -> Tensor:
        """Tensor: (L, S, D) all entries, S = classes * size; see :meth:`mask`."""
        return self._entries[:, :-1]

    @torch.no_grad()
    def enqueue(self, rows: Tensor, labels: Tensor, valid: Optional[Tensor] = None) -> None:
        """Add embeddings; each takes the place of the oldest of its level and class.

        Args:
            rows (Tensor): (L, M, D) embeddings, oldest first; M may be 0.
            labels (Tensor): (1 | L, M) class of each; those without a class (-1) are left out.
            valid (Tensor, optional): (1 | L, M) bool, which to add. Defaults to all. Those that are
                not finite are left out: one overflow would spoil the losses of many iterations.
        """
        if rows.shape[1] == 0:
            return
        rows = rows.to(self._entries.dtype)
        known = rows.sum(dim=2) * 0 == 0
        if valid is not None:
            known = known & valid
        classes = torch.arange(self.num_classes, device=rows.device)
        members = (labels[..., None] == classes) & known[..., None]  # (L, M, classes)
        order = members.cumsum(dim=1)
        total = order[:, -1:]
        # what this very call would push out again is not kept: no place is written twice
        kept = members & (order > total - self.size)
        place = (self._count[:, None] + order - 1) % self.size + classes * self.size
        place = torch.where(kept, place, self.num_classes * self.size).amin(dim=2)
        self._entries.scatter_(1, place[..., None].expand_as(rows), rows)
        self._count.add_(total[:, 0])

    def mask(self, labels: Tensor) -> Tensor:
        """Find the entries that each anchor is compared with.

        Args:
            labels (Tensor): (1 | L, M) class of each anchor, -1 where unknown.

        Returns:
            Tensor: (L, M, S) bool: entries of another class than the anchor's; of any class where
            the anchor's is unknown.
        """
        places, classes = (
            torch.arange(n, device=labels.device) for n in (self.size, self.num_classes)
        )
        used = places < self._count[..., None]
        others = labels[..., None] != classes
        return (used[:, None] & others[..., None]).flatten(2)
