"""Normalised temperature-scaled cross-entropy (NT-Xent)."""

from mmdet.registry import MODELS

from .pair_criterion import (
    PairBatch,
    PairCriterion,
    Terms,
    compare_two_views,
    compared_pairs,
    counted_pairs,
    cross_entropy,
)


@MODELS.register_module()
class NTXentLoss(PairCriterion):
    r"""NT-Xent loss over pairs of embeddings (SimCLR, arXiv 2002.05709, equation 1).

    The 2M embeddings of M pairs are all anchors, and the partner is the positive:

    .. math::
        l_i = -\log \frac{\exp(s_{i i^+} / \tau)}
                         {\exp(s_{i i^+} / \tau) + \sum_{k \in N(i)} \exp(s_{ik} / \tau)}

    with cosine similarity :math:`s`. An anchor without negatives has the term 0.

    Args:
        temperature (float): Temperature :math:`\tau`.
        negatives (str): ``'other_class'``: the embeddings with another label; two objects of one
            class should not be pushed apart. ``'all'``: every embedding of the batch other than the
            pair, the loss of SimCLR. Of a queue they are those of other classes either way.
        loss_weight (float): Factor of the result.

    Examples:
        >>> loss = NTXentLoss(temperature=0.5, negatives='other_class')
        >>> query, key = torch.randn(2, 8, 128)
        >>> loss(query, key, labels=torch.randint(3, (8,)))
    """

    has_chance_level = True

    def __init__(
        self, temperature: float = 0.5, negatives: str = 'other_class', loss_weight: float = 1.0
    ) -> None:
        super().__init__(loss_weight)
        # anything else would silently be one of the two
        if negatives not in ('all', 'other_class'):
            raise ValueError(f"negatives={negatives!r} given, 'other_class' or 'all' expected.")
        self.temperature = temperature
        self.negatives = negatives

    def terms(self, batch: PairBatch) -> Terms:
        """Compute two terms for each pair; see the base class."""
        pairs = compared_pairs(batch, same_class=self.negatives == 'all')
        logits, candidates = compare_two_views(batch, self.temperature, pairs)
        counted = counted_pairs(batch).repeat(1, 2)
        return Terms(cross_entropy(logits, candidates), counted, candidates, logits)
