"""Terms that compare anchors with candidates through a softmax: NT-Xent, SupCon, PatchNCE."""

from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Elements of a slice of the similarity matrix: enough to keep processors busy, and few enough for
# large caches.
_SLICE = 2**22
SAME_LABEL = ('negative', 'excluded', 'positive')


class _Comparison(NamedTuple):
    """Which columns of the similarity matrix a row is compared with.

    The columns are ``views`` times the M pairs, then K background embeddings.
    """

    pair: Tensor  # (R,) pair of each row
    partner: Tensor  # (R,) column of each row's partner
    own: Optional[Tensor]  # (R,) column of the row itself; None where it is not among them
    views: int
    labels: Optional[Tensor]  # (M,)
    groups: Optional[Tensor]  # (M,)
    same_label: str
    background_mask: Optional[Tensor]  # (M, K)

    def exclude(self, logits: Tensor, rows: slice) -> None:
        """Set the logits of what takes no part to minus infinity."""
        pair, excluded = self.pair[rows], None
        if self.same_label == 'excluded':
            excluded = self._same_label(pair)
        if self.groups is not None:
            foreign = self.groups[pair][:, None] != self.groups
            excluded = foreign if excluded is None else excluded | foreign
        if excluded is not None:
            excluded = excluded.repeat(1, self.views)
            excluded.scatter_(1, self.partner[rows, None], False)
            logits[:, : excluded.shape[1]].masked_fill_(excluded, float('-inf'))
        if self.own is not None:
            logits.scatter_(1, self.own[rows, None], float('-inf'))
        if self.background_mask is not None:
            background = logits[:, self.views * self.background_mask.shape[0] :]
            background.masked_fill_(~self.background_mask[pair], float('-inf'))

    def positives(self, rows: slice, like: Tensor) -> Tensor:
        """Return the share of every column in its row's positives; a row sums to 1."""
        pair = self.pair[rows]
        same = self._same_label(pair)
        if self.groups is not None:
            same &= self.groups[pair][:, None] == self.groups
        same = same.repeat(1, self.views).scatter_(1, self.partner[rows, None], True)
        if self.own is not None:
            same.scatter_(1, self.own[rows, None], False)
        shares = torch.zeros_like(like)
        shares[:, : same.shape[1]] = same
        return shares.div_(same.sum(dim=1, keepdim=True))

    def _same_label(self, pair: Tensor) -> Tensor:
        """Return (R, M) bool: pairs of one and the same class; an unknown class is no other's."""
        label = self.labels[pair][:, None]
        return (label == self.labels) & (label >= 0)


def two_view_terms(
    query: Tensor,
    key: Tensor,
    labels: Optional[Tensor],
    groups: Optional[Tensor],
    *,
    temperature: float,
    same_label: str,
    anchors: Optional[Tensor],
    background: Optional[Tensor],
    background_mask: Optional[Tensor],
    max_elements: int,
) -> Tensor:
    r"""Compare each of the 2M embeddings of M pairs with the other ones.

    .. math::
        l_i = \log \sum_{k \in D(i)} \exp(s_{ik} / \tau)
              - \frac{1}{|P(i)|} \sum_{p \in P(i)} s_{ip} / \tau

    with cosine similarity :math:`s`; the partner is always in :math:`P(i)` and :math:`D(i)`.

    Args:
        query (Tensor): (M, D) embeddings of the first view, normalised here.
        key (Tensor): (M, D) embeddings of the second view, row by row the partners.
        labels (Tensor, optional): (M,) class indices, -1 where unknown: another class than any.
        groups (Tensor, optional): (M,) integers; only embeddings of one group are compared.
        temperature (float): :math:`\tau`.
        same_label (str): What embeddings of the anchor's class are: ``'negative'`` as any other
            (labels are not used), ``'excluded'`` from :math:`D`, or ``'positive'``, in :math:`P`.
        anchors (Tensor, optional): (M,) bool, the pairs whose two terms are wanted.
        background (Tensor, optional): (K, D) embeddings in :math:`D` alone.
        background_mask (Tensor, optional): (M, K) bool, which pair is compared with which.
        max_elements (int): Size of the similarity matrix up to which it is kept.

    Returns:
        Tensor: (2A,) terms of the A anchor pairs, queries first, in float32 or float64.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    embeddings = F.normalize(torch.cat((query, key)).to(dtype), dim=1)
    num_pairs = len(query)
    pairs = _anchor_pairs(query, anchors)
    rows = torch.cat((pairs, pairs + num_pairs))
    scaled = (embeddings if anchors is None else embeddings[rows]) / temperature
    if len(scaled) == 0:
        return scaled.sum(dim=1)
    comparison = _Comparison(
        pair=pairs.repeat(2),
        partner=torch.cat((pairs + num_pairs, pairs)),
        own=rows,
        views=2,
        labels=labels,
        groups=groups,
        same_label=same_label,
        background_mask=background_mask,
    )
    return _Terms.apply(scaled, _join(embeddings, background), comparison, max_elements)


def one_view_terms(
    query: Tensor,
    key: Tensor,
    groups: Optional[Tensor],
    *,
    temperature: float,
    anchors: Optional[Tensor],
    background: Optional[Tensor],
    background_mask: Optional[Tensor],
    max_elements: int,
) -> Tensor:
    """Compare the queries with the keys: cross-entropy with the partner as target.

    Args:
        query (Tensor): (M, D) embeddings of the first view, normalised here.
        key (Tensor): (M, D) embeddings of the second view, row by row the partners.
        groups (Tensor, optional): (M,) integers; only embeddings of one group are compared.
        temperature (float): Divisor of the cosine similarities.
        anchors (Tensor, optional): (M,) bool, the pairs whose term is wanted.
        background (Tensor, optional): (K, D) embeddings that are negatives and nothing else.
        background_mask (Tensor, optional): (M, K) bool, which pair is compared with which.
        max_elements (int): Size of the similarity matrix up to which it is kept.

    Returns:
        Tensor: (A,) terms of the A anchor pairs in float32 or float64.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    pairs = _anchor_pairs(query, anchors)
    key = F.normalize(key.to(dtype), dim=1)
    if groups is not None:
        _, group, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
        needed = len(sizes) * int(sizes.max()) ** 2
        # padded to the largest group: worth it unless one of many groups holds nearly all rows
        if needed < len(query) ** 2 and needed <= max_elements:
            scaled = F.normalize(query.to(dtype), dim=1) / temperature
            logits, place = _grouped_logits(scaled, key, group, sizes, pairs)
            if background is not None:
                others = scaled[pairs] @ F.normalize(background.to(dtype), dim=1).T
                if background_mask is not None:
                    others = others.masked_fill(~background_mask[pairs], float('-inf'))
                logits = torch.cat((logits, others), dim=1)
            return F.cross_entropy(logits, place, reduction='none')
    scaled = F.normalize((query if anchors is None else query[pairs]).to(dtype), dim=1)
    comparison = _Comparison(
        pair=pairs,
        partner=pairs,
        own=None,
        views=1,
        labels=None,
        groups=groups,
        same_label='negative',
        background_mask=background_mask,
    )
    return _Terms.apply(scaled / temperature, _join(key, background), comparison, max_elements)


def _grouped_logits(
    query: Tensor, key: Tensor, group: Tensor, sizes: Tensor, pairs: Tensor
) -> Tuple[Tensor, Tensor]:
    """Compare queries with the keys of their group alone, all groups in one product.

    Returns:
        tuple[Tensor, Tensor]: (A, S) logits of the anchors with the keys of their group, of which
        the largest has S and the others are filled up with minus infinity; (A,) their partners'
        columns.
    """
    count, longest = len(query), int(sizes.max())
    order = group.argsort(stable=True)
    place = torch.empty_like(group)
    starts = sizes.cumsum(0) - sizes
    place[order] = torch.arange(count, device=group.device) - starts[group[order]]
    slot = group * longest + place
    padded = [
        x.new_zeros(len(sizes) * longest, x.shape[1])
        .index_copy(0, slot, x)
        .reshape(len(sizes), longest, -1)
        for x in (query, key)
    ]
    logits = torch.bmm(padded[0], padded[1].transpose(1, 2)).flatten(0, 1)[slot[pairs]]
    empty = torch.arange(longest, device=group.device) >= sizes[group[pairs]][:, None]
    return logits.masked_fill(empty, float('-inf')), place[pairs]


def _anchor_pairs(query: Tensor, anchors: Optional[Tensor]) -> Tensor:
    """Return the indices of the pairs that are anchors."""
    pairs = torch.arange(len(query), device=query.device)
    return pairs if anchors is None else pairs[anchors]


def _join(embeddings: Tensor, background: Optional[Tensor]) -> Tensor:
    """Append normalised background embeddings."""
    if background is None:
        return embeddings
    return torch.cat((embeddings, F.normalize(background.to(embeddings.dtype), dim=1)))


class _Terms(Function):
    """``logsumexp(scaled @ candidates.T, dim=1) - positive`` of every row, without excluded ones.

    Autograd would keep the similarity matrix several times. Here it is made in slices that stay
    in the cache, turned in place into the gradient of its row's term, and kept at most once.
    """

    @staticmethod
    def forward(
        ctx, scaled: Tensor, candidates: Tensor, comparison: _Comparison, max_elements: int
    ) -> Tensor:
        rows = max(1, min(_SLICE, max_elements) // len(candidates))
        ctx.parts = [slice(i, i + rows) for i in range(0, len(scaled), rows)]
        ctx.comparison = comparison
        keeps = len(scaled) * len(candidates) <= max_elements and any(ctx.needs_input_grad)
        terms, kept = [], []
        for part in ctx.parts:
            term, gradient = _slice_terms(scaled[part], candidates, comparison, part)
            terms.append(term)
            if keeps:
                kept.append(gradient)
        ctx.save_for_backward(scaled, candidates, *kept)
        return torch.cat(terms)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        scaled, candidates, *kept = ctx.saved_tensors
        grad_scaled = torch.empty_like(scaled)
        # targets without gradient need no second product
        grad_candidates = torch.zeros_like(candidates) if ctx.needs_input_grad[1] else None
        for i, part in enumerate(ctx.parts):
            if kept:
                gradient = kept[i]
            else:
                _, gradient = _slice_terms(scaled[part], candidates, ctx.comparison, part)
            factor = grad[part, None]
            grad_scaled[part] = (gradient @ candidates).mul_(factor)
            if grad_candidates is not None:
                grad_candidates.addmm_(gradient.T, factor * scaled[part])
        return grad_scaled, grad_candidates, None, None


def _slice_terms(
    scaled: Tensor, candidates: Tensor, comparison: _Comparison, rows: slice
) -> Tuple[Tensor, Tensor]:
    """Return the terms of some rows, (R,), and their gradients by the logits, (R, columns)."""
    logits = scaled @ candidates.T
    partner = comparison.partner[rows, None]
    if comparison.same_label == 'positive':
        shares = comparison.positives(rows, logits)
        positive = (logits * shares).sum(dim=1, keepdim=True)
    else:
        shares, positive = None, logits.gather(1, partner)
    comparison.exclude(logits, rows)
    highest = logits.amax(dim=1, keepdim=True)
    weights = logits.sub_(highest).exp_()
    total = weights.sum(dim=1, keepdim=True)
    term = total.log() + (highest - positive)
    gradient = weights.div_(total)
    if shares is None:
        gradient.scatter_add_(1, partner, -torch.ones_like(total))
    else:
        gradient.sub_(shares)
    return term[:, 0], gradient
