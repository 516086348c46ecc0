"""What the losses over pairs of embeddings share: their input, their call and the mean."""

from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PairBatch(NamedTuple):
    """M pairs on each of L levels, and K rows more that are negatives only.

    It travels from the sampler to the loss: its rows are first regions of the batch, then their
    pooled features, then embeddings. Where the first dimension of a mask or label is 1, all levels
    share it.
    """

    rows: Tensor
    """(L, 2M + K, D): the M queries, their M keys in the same order, the K further negatives."""

    labels: Optional[Tensor] = None
    """(1 | L, M) class indices, -1 where unknown: another class than any. None: all unknown."""

    groups: Optional[Tensor] = None
    """(1 | L, M) integers; only pairs of one group are compared."""

    valid: Optional[Tensor] = None
    """(1 | L, M) bool: pairs that take part. None: all."""

    own: Optional[Tensor] = None
    """(1 | L, M) bool: pairs whose terms count here; others are only compared with. None: all."""

    background_mask: Optional[Tensor] = None
    """(1 | L, M, K) bool: which pair is compared with which of the K rows. None: all with all."""

    @property
    def num_pairs(self) -> int:
        """int: The number M."""
        if self.labels is not None:
            return self.labels.shape[1]
        return self.rows.shape[1] // 2 if self.valid is None else self.valid.shape[1]


class Terms(NamedTuple):
    """What a criterion makes of a batch: A terms for each of L levels."""

    values: Tensor
    """(L, A) terms."""

    counted: Tensor
    """(1 | L, A) bool: the terms that enter the mean."""

    chance: Optional[Tensor] = None
    """(1 | L, A) what the terms would be if all embeddings were alike."""

    logits: Optional[Tensor] = None
    """(L, A, C) logits of the anchors with all candidates, the K further negatives last, before any
    is left out."""

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
    """Whether the terms come with their chance level."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        labels: Optional[Tensor] = None,
        groups: Optional[Tensor] = None,
        background: Optional[Tensor] = None,
        background_mask: Optional[Tensor] = None,
    ) -> Tensor:
        """Compute the mean of the terms of M pairs, on one level or on L levels at once.

        Args:
            query (Tensor): (M, D) or (L, M, D) embeddings of the first view; M may be 0.
            key (Tensor): As ``query``, of the second view; row by row the partners.
            labels (Tensor, optional): (M,) class indices, -1 where unknown: another class than any.
                Defaults to all unknown.
            groups (Tensor, optional): (M,) integers, such as the image; only pairs of one group are
                compared. Defaults to one group.
            background (Tensor, optional): (K, D) or (L, K, D) embeddings that are negatives only.
            background_mask (Tensor, optional): (M, K) bool, which pair is compared with which of
                them. Defaults to all with all.

        Returns:
            Tensor: Scalar, or (L,), in float32 or float64; 0 where there is no pair.
        """
        parts = [query, key] if background is None else [query, key, background]
        with torch.autocast(device_type=query.device.type, enabled=False):
            rows = torch.cat(parts, dim=-2)
        if query.dim() == 2:
            rows = rows[None]
        valid = torch.ones(1, query.shape[-2], dtype=torch.bool, device=query.device)
        batch = PairBatch(
            rows,
            labels=None if labels is None else labels[None],
            groups=None if groups is None else groups[None],
            valid=valid,
            background_mask=None if background_mask is None else background_mask[None],
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
    count = batch.num_pairs
    if batch.valid is None:
        others = batch.rows.new_ones((1, count, count), dtype=torch.bool)
    else:
        others = batch.valid[:, None].repeat(1, count, 1)
    if not same_class:
        others = others & other_class(batch)
    if batch.groups is not None:
        others = others & (batch.groups[:, :, None] == batch.groups[:, None])
    others.diagonal(dim1=1, dim2=2).fill_(False)
    return others


def other_class(batch: PairBatch) -> Tensor:
    """Return (1 | L, M, M) bool: all pairs but those of one known class."""
    labels = batch.labels
    if labels is None:
        return batch.rows.new_ones((1, batch.num_pairs, batch.num_pairs), dtype=torch.bool)
    return (labels[:, :, None] != labels[:, None]) | (labels < 0)[:, None]


def counted_pairs(batch: PairBatch) -> Tensor:
    """Return (1 | L, M) bool: the pairs whose terms count."""
    masks = [mask for mask in (batch.valid, batch.own) if mask is not None]
    if not masks:
        return batch.rows.new_ones((1, batch.num_pairs), dtype=torch.bool)
    return masks[0] if len(masks) == 1 else masks[0] & masks[1]


def compare_two_views(batch: PairBatch, temperature: float, same_class: bool) -> Tuple[Tensor, ...]:
    """Compare the queries and keys with one another and with the background.

    Args:
        batch (PairBatch): Pairs of embeddings, normalised here.
        temperature (float): Divisor of the cosine similarities.
        same_class (bool): Whether other pairs of the same class are compared.

    Returns:
        tuple[Tensor, Tensor]: (L, 2M, 2M + K) logits of the keys and then the queries, the partners
        on the diagonal; and (1 | L, 2M, 2M + K) bool, which are compared.
    """
    count = batch.num_pairs
    rows = F.normalize(batch.rows, dim=2)
    anchors = partners_of(rows, count)
    logits = (anchors / temperature) @ rows.transpose(1, 2)
    mask = compared_pairs(batch, same_class).repeat(1, 2, 2)
    mask.diagonal(dim1=1, dim2=2).fill_(True)
    mask = append_background(mask, batch, repeats=2)
    return logits, mask


def compare_one_view(batch: PairBatch, temperature: float, detach_key: bool) -> Tuple[Tensor, ...]:
    """Compare the queries with the keys, and with the background.

    Args:
        batch (PairBatch): Pairs of embeddings, normalised here.
        temperature (float): Divisor of the cosine similarities.
        detach_key (bool): Whether keys and background are targets without gradient.

    Returns:
        tuple[Tensor, Tensor]: (L, M, M + K) logits, the partners on the diagonal; and
        (1 | L, M, M + K) bool, which are compared.
    """
    count = batch.num_pairs
    rows = F.normalize(batch.rows, dim=2)
    keys = rows[:, count:].detach() if detach_key else rows[:, count:]
    logits = (rows[:, :count] / temperature) @ keys.transpose(1, 2)
    mask = compared_pairs(batch, same_class=True)
    mask.diagonal(dim1=1, dim2=2).fill_(True)
    mask = append_background(mask, batch, repeats=1)
    return logits, mask


def partners_of(rows: Tensor, count: int) -> Tensor:
    """Return the (L, 2M, D) partners of M queries and M keys: the keys, then the queries."""
    return rows[:, : 2 * count].roll(count, dims=1)


def log_probabilities(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the logarithm of a softmax of (L, A, C) logits over the candidates of each anchor."""
    return torch.where(mask, logits, float('-inf')).log_softmax(dim=2)


def cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the (L, A) cross-entropies of (L, A, C) logits with the diagonal as target."""
    return -log_probabilities(logits, mask).diagonal(dim1=1, dim2=2)


def chance_level(mask: Tensor) -> Tensor:
    """Return the logarithm of the number of candidates: the term of rows that are all alike."""
    return mask.sum(dim=2, dtype=torch.float32).log()


def append_background(mask: Tensor, batch: PairBatch, repeats: int) -> Tensor:
    """Append the columns of the K background rows to a mask of pairs.

    Args:
        mask (Tensor): (1 | L, A, C) bool, A = ``repeats`` times M.
        batch (PairBatch): The pairs.
        repeats (int): 2 where keys are anchors, too.

    Returns:
        Tensor: (1 | L, A, C + K) bool.
    """
    background = batch.rows.shape[1] - 2 * batch.num_pairs
    if not background:
        return mask
    columns = batch.background_mask
    if columns is None:
        columns = mask.new_ones((1, batch.num_pairs, background))
    levels = max(len(mask), len(columns))
    columns = columns.repeat(1, repeats, 1).expand(levels, -1, -1)
    return torch.cat((mask.expand(levels, -1, -1), columns), dim=2)
