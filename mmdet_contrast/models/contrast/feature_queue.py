"""Embeddings of earlier batches as further negatives."""

from typing import Tuple

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
    _classes: Tensor
    _starts: Tensor
    _filled: Tensor

    def __init__(self, num_levels: int, num_classes: int, channels: int, size: int = 64) -> None:
        super().__init__()
        self.size = size
        # the last place of a level takes what is not kept, and is never read
        places = num_classes * size + 1
        entries = torch.zeros(num_levels, places, channels)
        self.register_buffer('_entries', entries, persistent=False)
        # embeddings that came so far
        count = torch.zeros(num_levels, num_classes, dtype=torch.long)
        self.register_buffer('_count', count, persistent=False)
        # kept: on a GPU making them takes as long as using them
        classes = torch.arange(num_classes)
        self.register_buffer('_classes', classes, persistent=False)
        self.register_buffer('_starts', classes * size, persistent=False)
        # the n-th embedding of a class goes to place n modulo size: of each place the first n
        self.register_buffer('_filled', torch.arange(1, size + 1).roll(1), persistent=False)

    @property
    def entries(self) -> Tensor:
        """Tensor: (L, S, D) all entries, S = classes * size; see :meth:`mask`."""
        return self._entries[:, :-1]

    @torch.no_grad()
    def enqueue(self, rows: Tensor, labels: Tensor) -> None:
        """Add embeddings; each takes the place of the oldest of its level and class.

        Args:
            rows (Tensor): (L, M, D) embeddings, oldest first; M may be 0. Those that are not finite
                are left out: one overflow would spoil the losses of many iterations.
            labels (Tensor): (1 | L, M) class of each; those without a class (-1) are left out.
        """
        if rows.shape[1] == 0:
            return
        rows = rows.to(self._entries.dtype)
        # NaN, which is no class, where a row is not finite
        labels = torch.add(labels, rows.sum(dim=2), alpha=0)
        members = labels[..., None] == self._classes  # (L, M, classes)
        number = self._count[:, None] + members.cumsum(dim=1)
        # what this very call would push out again is not kept: no place is written twice
        kept = members & (number > number[:, -1:] - self.size)
        place = number % self.size + self._starts
        place = torch.where(kept, place, self._entries.shape[1] - 1).amin(dim=2)
        self._entries.scatter_(1, place[..., None].expand_as(rows), rows)
        self._count.copy_(number[:, -1])

    def mask(self, labels: Tensor) -> Tensor:
        """Find the entries that each anchor is compared with.

        Args:
            labels (Tensor): (1 | L, M) class of each anchor, -1 where unknown.

        Returns:
            Tensor: (L, M, S) bool: entries of another class than the anchor's; of any class where
            the anchor's is unknown.
        """
        others = labels[..., None] != self._classes
        return (self._used()[:, None] & others[..., None]).flatten(2)

    def tell_classes(self, logits: Tensor, labels: Tensor) -> Tuple[Tensor, Tensor]:
        r"""Tell the classes of embeddings by their similarity to the entries of each class.

        .. math::
            s_c = \frac{1}{|Q_c|} \sum_{k \in Q_c} \exp(\cos(z, k) / \tau), \qquad
            \text{loss} = -\log \frac{s_y}{\sum_c s_c}, \qquad
            \text{chance} = \log(\text{number of classes that have entries})

        Args:
            logits (Tensor): (L, A, S) similarities to all entries, :math:`\cos(z, k) / \tau`.
            labels (Tensor): (1 | L, A) class of each embedding.

        Returns:
            tuple[Tensor, Tensor]: (L, A) losses and (L, A) what they would be if all embeddings
            were alike; both 0 where a class is unknown or has no entry.
        """
        used = self._used()
        # each class has one vote, shared by its entries; softmax, as exp alone would overflow at a
        # low temperature
        votes = (used / self._count.clamp(1, self.size)[..., None]).log().flatten(1)
        shares = (logits + votes[:, None]).softmax(dim=2).unflatten(2, used.shape[1:]).sum(dim=3)
        present = self._count > 0
        shares = shares.clamp(min=torch.finfo(shares.dtype).tiny) * present[:, None]
        own = (shares * (labels[..., None] == self._classes)).sum(dim=2)
        known = own > 0
        chance = torch.xlogy(known, present.sum(dim=1, keepdim=True))
        return torch.where(known, -own.log(), 0), chance

    def _used(self) -> Tensor:
        """Return (L, classes, size) bool: the places that hold an entry."""
        return self._filled <= self._count[..., None]
