"""Normalised temperature-scaled cross-entropy (NT-Xent)."""

from typing import Optional

import torch
from mmdet.registry import MODELS
from torch import Tensor

from ._contrast_terms import two_view_terms
from ._pairs import PairCriterion, Pairs, check_choice, check_temperature

NEGATIVES = ('all', 'other_class')


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
            with another label; -1, unknown, is another label than any.
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

    Raises:
        ValueError: If ``negatives`` is unknown, or the labels that it needs are missing.
    """
    check_choice('nt_xent_loss', 'negatives', negatives, NEGATIVES)
    _check_labels('nt_xent_loss', negatives, labels)
    with torch.autocast(device_type=query.device.type, enabled=False):
        return two_view_terms(
            query,
            key,
            labels,
            groups,
            temperature=temperature,
            same_label='negative' if negatives == 'all' else 'excluded',
            anchors=anchors,
            background=background,
            background_mask=background_mask,
            max_elements=max_elements,
        )


@MODELS.register_module()
class NTXentLoss(PairCriterion):
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
        super().__init__(loss_weight)
        check_temperature('NTXentLoss', temperature)
        check_choice('NTXentLoss', 'negatives', negatives, NEGATIVES)
        self.temperature = temperature
        self.negatives = negatives
        self.max_elements = max_elements

    def prepare(self, pairs: Pairs) -> Pairs:
        """Require labels where they decide what is a negative; see the base class."""
        _check_labels('NTXentLoss', self.negatives, pairs.labels)
        return pairs

    def terms(self, pairs: Pairs) -> Tensor:
        """Compute the terms of the anchors; see the base class and :func:`nt_xent_loss`."""
        return nt_xent_loss(
            pairs.query,
            pairs.key,
            pairs.labels,
            pairs.groups,
            temperature=self.temperature,
            negatives=self.negatives,
            anchors=pairs.anchors,
            background=pairs.background,
            background_mask=pairs.background_mask,
            max_elements=self.max_elements,
        )


def _check_labels(name: str, negatives: str, labels: Optional[Tensor]) -> None:
    """Refuse to tell classes apart without labels."""
    if negatives == 'other_class' and labels is None:
        raise ValueError(
            f"{name} with negatives='other_class' got no labels; pass the class index of each "
            "pair, -1 where it is unknown, or use negatives='all'."
        )
