"""What the losses over pairs of embeddings share: their input, their call and the mean."""

from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PairBatch(NamedTuple):
    """M pairs on each of L levels, and F + K rows more that are negatives only.

    It travels from the sampler to the loss: its rows are first regions of the batch, then their
    pooled features, then embeddings. Where the first dimension of a mask or label is 1, all levels
    share it.
    """

    rows: Tensor
    """(L, 2M + F + K, D): the M queries, their M keys in the same order, the further negatives."""

    labels: Tensor
    """(1 | L, M) class indices, -1 where unknown: another class than any."""

    valid: Tensor
    """(1 | L, M) bool: pairs that take part."""

    groups: Optional[Tensor] = None
    """(1 | L, M) integers; only pairs of one group are compared."""

    own: Optional[Tensor] = None
    """(1 | L, M) bool: pairs whose terms count here; others are only compared with. None: all."""

    fallback_mask: Optional[Tensor] = None
    """(1 | L, 1 | M, F) bool: which pair is compared with which of the F rows, if it is compared
    with no other pair. None: there are no such rows."""

    queue_mask: Optional[Tensor] = None
    """(1 | L, 1 | M, K) bool: which pair is compared with which of the K rows. None: there are no
    such rows."""

    @property
    def num_pairs(self) -> int:
        """int: The number M."""
        return self.valid.shape[1]


class Terms(NamedTuple):
    """What a criterion makes of a batch: A terms for each of L levels."""

    values: Tensor
    """(L, A) terms."""

    counted: Tensor
    """(1 | L, A) bool: the terms that enter the mean."""

    candidates: Optional[Tensor] = None
    """(1 | L, A, C) bool: the rows among which each anchor is to find its partner."""

    logits: Optional[Tensor] = None
    """(L, A, C) logits of the anchors with all rows, candidates or not, the K negatives last."""

    @property
    def chance(self) -> Tensor:
        """Tensor: (1 | L, A) what the terms would be if all embeddings were alike."""
        assert self.candidates is not None
        return self.candidates.sum(dim=2, dtype=torch.float32).log()

    def mean(self) -> Tensor:
        """Return the (L,) means of the terms that count; 0 where there is none."""
        counted = self.counted.to(self.values.dtype).expand_as(self.values)
        return (self.values * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


class PairCriterion(nn.Module):
    """Base of the losses over pairs of embeddings; a loss derives from it and has :meth:`terms`.

    Args:
        loss_weight (float): Factor of the result.
    """

    uses_negatives = True
    """Whether other rows than the pair itself change a term."""

    has_chance_level = False
    """Whether the terms have candidates, whose number gives their chance level."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        labels: Optional[Tensor] = None,
        groups: Optional[Tensor] = None,
    ) -> Tensor:
        """Compute the mean of the terms of M pairs, on one level or on L levels at once.

        Args:
            query (Tensor): (M, D) or (L, M, D) embeddings of the first view; M may be 0.
            key (Tensor): As ``query``, of the second view; row by row the partners.
            labels (Tensor, optional): (M,) class indices, -1 where unknown: another class than any.
                Defaults to all unknown.
            groups (Tensor, optional): (M,) integers, such as the image; only pairs of one group are
                compared. Defaults to one group.

        Returns:
            Tensor: Scalar, or (L,), in float32 or float64; 0 where there is no pair.
        """
        with torch.autocast(device_type=query.device.type, enabled=False):
            rows = torch.cat((query, key), dim=-2)
        if query.dim() == 2:
            rows = rows[None]
        valid = torch.ones(1, query.shape[-2], dtype=torch.bool, device=query.device)
        batch = PairBatch(
            rows,
            labels=torch.full_like(valid, -1, dtype=torch.long) if labels is None else labels[None],
            valid=valid,
            groups=None if groups is None else groups[None],
        )
        loss = self.loss_weight * self.compare(batch).mean()
        return loss[0] if query.dim() == 2 else loss

    def compare(self, batch: PairBatch) -> Terms:
        """Compute the terms in float32 or wider, under autocast, too.

        Args:
            batch (PairBatch): Pairs of embeddings.

        Returns:
            Terms: One or two for each pair; of two, all of one view come first.
        """
        rows = batch.rows.to(torch.promote_types(batch.rows.dtype, torch.float32))
        with torch.autocast(device_type=rows.device.type, enabled=False):
            return self.terms(batch._replace(rows=rows))

    def terms(self, batch: PairBatch) -> Terms:
        """Compute the terms; see :meth:`compare`."""
        raise NotImplementedError


def compared_pairs(batch: PairBatch, same_class: bool) -> Tensor:
    """Find the other pairs that each pair is compared with.

    Args:
        batch (PairBatch): The pairs.
        same_class (bool): Whether those of the same class are among them.

    Returns:
        Tensor: (1 | L, M, M) bool, False on the diagonal.
    """
    valid, labels = batch.valid[:, None], batch.labels
    if same_class:
        others = valid.repeat(1, batch.num_pairs, 1)
    else:
        others = valid & ((labels[:, :, None] != labels[:, None]) | (labels < 0)[:, None])
    if batch.groups is not None:
        others = others & (batch.groups[:, :, None] == batch.groups[:, None])
    others.diagonal(dim1=1, dim2=2).fill_(False)
    return others


def compared_rows(pairs: Tensor, batch: PairBatch, views: int) -> Tensor:
    """Find the rows that each anchor is compared with, its partner left out.

    Args:
        pairs (Tensor): (1 | L, M, M) bool, the other pairs that each pair is compared with.
        batch (PairBatch): The pairs.
        views (int): 1: the queries are compared with the keys; 2: either with both.

    Returns:
        Tensor: (1 | L, A, A + F + K) bool, A = ``views`` times M.
    """
    masks = [pairs] * views
    if batch.fallback_mask is not None:
        masks.append(batch.fallback_mask & ~pairs.any(dim=2, keepdim=True))
    if batch.queue_mask is not None:
        masks.append(batch.queue_mask)
    levels = max(len(mask) for mask in masks)
    masks = [mask.expand(levels, batch.num_pairs, -1) for mask in masks]
    return torch.cat(masks, dim=2).repeat(1, views, 1)


def counted_pairs(batch: PairBatch) -> Tensor:
    """Return (1 | L, M) bool: the pairs whose terms count."""
    return batch.valid if batch.own is None else batch.valid & batch.own


def compare_two_views(batch: PairBatch, temperature: float, pairs: Tensor) -> Tuple[Tensor, ...]:
    """Compare the queries and keys with one another and with the further negatives.

    Args:
        batch (PairBatch): Pairs of embeddings, normalised here.
        temperature (float): Divisor of the cosine similarities.
        pairs (Tensor): (1 | L, M, M) bool, the other pairs that each pair is compared with.

    Returns:
        tuple[Tensor, Tensor]: (L, 2M, 2M + F + K) logits of the keys and then the queries, the
        partners on the diagonal; and (1 | L, 2M, 2M + F + K) bool, which are candidates.
    """
    rows = F.normalize(batch.rows, dim=2)
    anchors = partners_of(rows, batch.num_pairs)
    logits = (anchors / temperature) @ rows.transpose(1, 2)
    candidates = compared_rows(pairs, batch, views=2)
    candidates.diagonal(dim1=1, dim2=2).fill_(True)
    return logits, candidates


def partners_of(rows: Tensor, count: int) -> Tensor:
    """Return the (L, 2M, D) partners of M queries and M keys: the keys, then the queries."""
    return rows[:, : 2 * count].roll(count, dims=1)


def log_probabilities(logits: Tensor, candidates: Tensor) -> Tensor:
    """Return the logarithm of a softmax of (L, A, C) logits over the candidates of each anchor."""
    return torch.where(candidates, logits, float('-inf')).log_softmax(dim=2)


def cross_entropy(logits: Tensor, candidates: Tensor) -> Tensor:
    """Return the (L, A) cross-entropies of (L, A, C) logits with the diagonal as target."""
    return -log_probabilities(logits, candidates).diagonal(dim1=1, dim2=2)
