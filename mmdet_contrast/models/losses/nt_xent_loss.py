"""Normalised temperature-scaled cross-entropy (NT-Xent)."""

from typing import Callable, Optional, Tuple

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

NEGATIVES = ('all', 'other_class')
# Elements of a slice of the similarity matrix: enough to keep processors busy, and few enough for
# large caches.
_SLICE = 2**22


def nt_xent_loss(
    query: Tensor,
    key: Tensor,
    labels: Optional[Tensor] = None,
    groups: Optional[Tensor] = None,
    *,
    temperature: float = 0.5,
    negatives: str = 'all',
    anchors: Optional[Tensor] = None,
    background: Optional[Tensor] = None,
    background_mask: Optional[Tensor] = None,
    max_elements: int = 2**28,
) -> Tensor:
    r"""Compute the NT-Xent term of every anchor (SimCLR, arXiv 2002.05709, equation 1).

    The 2M embeddings of M pairs are all anchors, and the partner is the positive:

    .. math::
        l_i = -\log \frac{\exp(s_{i i^+} / \tau)}
                         {\exp(s_{i i^+} / \tau) + \sum_{k \in N(i)} \exp(s_{ik} / \tau)}

    with cosine similarity :math:`s`. An anchor without negatives has the term 0.

    Args:
        query (Tensor): (M, D) embeddings of the first view, normalised here.
        key (Tensor): (M, D) embeddings of the second view, row by row the partners.
        labels (Tensor, optional): (M,) class indices; needed for ``'other_class'``.
        groups (Tensor, optional): (M,) integers; only embeddings of one group are compared.
        temperature (float): :math:`\tau`.
        negatives (str): ``'all'``: every embedding other than the pair. ``'other_class'``: those
            with another label.
        anchors (Tensor, optional): (M,) bool, the pairs whose two terms are wanted; the others
            only serve as negatives. Defaults to all.
        background (Tensor, optional): (K, D) embeddings that are negatives and nothing else.
        background_mask (Tensor, optional): (M, K) bool, which pair is compared with which
            background embedding. Defaults to all with all.
        max_elements (int): Size of the similarity matrix up to which it is kept for the backward
            pass. A larger one is made again there: slower by one matrix product, and no more
            than a slice of it is held at a time.

    Returns:
        Tensor: (2A,) terms of the A anchor pairs, queries first, in float32 or float64.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    embeddings = F.normalize(torch.cat((query, key)).to(dtype), dim=1)
    num_pairs, device = len(query), query.device
    pairs = torch.arange(num_pairs, device=device)
    if anchors is not None:
        pairs = pairs[anchors]
    pair_of_row = pairs.repeat(2)
    rows = torch.cat((pairs, pairs + num_pairs))
    partners = torch.cat((pairs + num_pairs, pairs))
    scaled = (embeddings if anchors is None else embeddings[rows]) / temperature
    candidates = embeddings
    if background is not None:
        candidates = torch.cat((embeddings, F.normalize(background.to(dtype), dim=1)))

    def exclude(logits: Tensor, start: int, stop: int) -> None:
        pair, row, partner = pair_of_row[start:stop], rows[start:stop, None], partners[start:stop]
        excluded = None
        if negatives == 'other_class':
            excluded = labels[pair][:, None] == labels
        if groups is not None:
            foreign = groups[pair][:, None] != groups
            excluded = foreign if excluded is None else excluded | foreign
        if excluded is not None:
            excluded = excluded.repeat(1, 2).scatter_(1, partner[:, None], False)
            logits[:, : 2 * num_pairs].masked_fill_(excluded, float('-inf'))
        logits.scatter_(1, row, float('-inf'))
        if background_mask is not None:
            logits[:, 2 * num_pairs :].masked_fill_(~background_mask[pair], float('-inf'))

    return _Terms.apply(scaled, candidates, partners, exclude, max_elements)


class _Terms(Function):
    """``logsumexp(scaled @ candidates.T, dim=1) - positive`` of every row, without excluded ones.

    Autograd would keep the similarity matrix several times. Here it is made in slices that stay
    in the cache, turned in place into the gradient of its row's term, and kept at most once.
    """

    @staticmethod
    def forward(
        ctx,
        scaled: Tensor,
        candidates: Tensor,
        partners: Tensor,
        exclude: Callable[[Tensor, int, int], None],
        max_elements: int,
    ) -> Tensor:
        rows = max(1, min(_SLICE, max_elements) // len(candidates))
        ctx.starts = range(0, len(scaled), rows)
        ctx.rows, ctx.exclude = rows, exclude
        keeps = len(scaled) * len(candidates) <= max_elements and any(ctx.needs_input_grad)
        terms, kept = [], []
        for start in ctx.starts:
            term, gradient = _slice_terms(
                scaled, candidates, partners, exclude, start, start + rows
            )
            terms.append(term)
            if keeps:
                kept.append(gradient)
        ctx.save_for_backward(scaled, candidates, partners, *kept)
        return torch.cat(terms)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        scaled, candidates, partners, *kept = ctx.saved_tensors
        grad_scaled, grad_candidates = torch.empty_like(scaled), torch.zeros_like(candidates)
        for i, start in enumerate(ctx.starts):
            part = slice(start, start + ctx.rows)
            if kept:
                gradient = kept[i]
            else:
                _, gradient = _slice_terms(
                    scaled, candidates, partners, ctx.exclude, part.start, part.stop
                )
            factor = grad[part, None]
            grad_scaled[part] = (gradient @ candidates).mul_(factor)
            grad_candidates.addmm_(gradient.T, factor * scaled[part])
        return grad_scaled, grad_candidates, None, None, None


def _slice_terms(
    scaled: Tensor,
    candidates: Tensor,
    partners: Tensor,
    exclude: Callable[[Tensor, int, int], None],
    start: int,
    stop: int,
) -> Tuple[Tensor, Tensor]:
    """Return the terms of some rows, (R,), and their gradients by the logits, (R, columns)."""
    logits = scaled[start:stop] @ candidates.T
    exclude(logits, start, stop)
    partner = partners[start:stop, None]
    positive = logits.gather(1, partner)
    highest = logits.amax(dim=1, keepdim=True)
    weights = logits.sub_(highest).exp_()
    total = weights.sum(dim=1, keepdim=True)
    term = total.log() + (highest - positive)
    gradient = weights.div_(total)
    gradient.scatter_add_(1, partner, -torch.ones_like(total))
    return term[:, 0], gradient


@MODELS.register_module()
class NTXentLoss(nn.Module):
    r"""NT-Xent loss over pairs of embeddings (SimCLR, arXiv 2002.05709).

    With ``negatives='all'`` this is the loss of SimCLR. With ``'other_class'`` embeddings that
    share the anchor's label are left out of the denominator: two objects of one class should not
    be pushed apart.

    Args:
        temperature (float): Temperature, > 0.
        negatives (str): ``'other_class'`` or ``'all'``.
        loss_weight (float): Factor of the result.
        max_elements (int): Size of the similarity matrix (rows times columns) up to which it is
            kept for the backward pass; a larger one is made twice and never held whole.

    Examples:
        >>> loss = NTXentLoss(temperature=0.5, negatives='other_class')
        >>> query, key = torch.randn(8, 128), torch.randn(8, 128)
        >>> loss(query, key, labels=torch.randint(3, (8,)))
    """

    def __init__(
        self,
        temperature: float = 0.5,
        negatives: str = 'other_class',
        loss_weight: float = 1.0,
        max_elements: int = 2**28,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f'temperature={temperature} given, a number above 0 expected.')
        if negatives not in NEGATIVES:
            raise ValueError(f'negatives={negatives!r} given, one of {NEGATIVES} expected.')
        self.temperature = temperature
        self.negatives = negatives
        self.loss_weight = loss_weight
        self.max_elements = max_elements

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        labels: Optional[Tensor] = None,
        groups: Optional[Tensor] = None,
        anchors: Optional[Tensor] = None,
        background: Optional[Tensor] = None,
        background_mask: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
    ) -> Tensor:
        """Compute the mean term over the 2M anchors.

        Args:
            query (Tensor): (M, D) embeddings of the first view; M may be 0.
            key (Tensor): (M, D) embeddings of the second view, row by row the partners.
            labels (Tensor, optional): (M,) class indices; needed for ``'other_class'``.
            groups (Tensor, optional): (M,) image indices; only embeddings of one group are
                compared. Defaults to one group.
            anchors (Tensor, optional): (M,) bool, the pairs that are anchors; defaults to all.
            background (Tensor, optional): (K, D) embeddings that are negatives only.
            background_mask (Tensor, optional): (M, K) bool, which pair is compared with which of
                them; defaults to all with all.
            avg_factor (float, optional): Divisor of the sum instead of the number of anchors.

        Returns:
            Tensor: Scalar; 0, finite and connected to the inputs, where there is no anchor.

        Raises:
            ValueError: If the shapes do not fit, or labels are missing for ``'other_class'``.
        """
        if query.dim() != 2 or query.shape != key.shape:
            raise ValueError(
                f'query of shape {tuple(query.shape)} and key of shape {tuple(key.shape)} given, '
                'two tensors of one shape (M, D) expected.'
            )
        for name, value in (('labels', labels), ('groups', groups), ('anchors', anchors)):
            if value is not None and value.shape != query.shape[:1]:
                raise ValueError(
                    f'{name} of shape {tuple(value.shape)} given, ({len(query)},) expected: one '
                    'entry for each pair.'
                )
        if self.negatives == 'other_class' and labels is None:
            raise ValueError(
                "NTXentLoss(negatives='other_class') got no labels; pass the class index of each "
                "pair, or use negatives='all'."
            )
        if len(query) == 0 or (anchors is not None and not anchors.any()):
            used = (query, key) if background is None else (query, key, background)
            return sum((x[:0] if len(x) == 0 else x * 0).sum() for x in used)
        with torch.autocast(device_type=query.device.type, enabled=False):
            loss = nt_xent_loss(
                query,
                key,
                labels,
                groups,
                temperature=self.temperature,
                negatives=self.negatives,
                anchors=anchors,
                background=background,
                background_mask=background_mask,
                max_elements=self.max_elements,
            )
            loss = loss.mean() if avg_factor is None else loss.sum() / avg_factor
        return self.loss_weight * loss
