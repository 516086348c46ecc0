"""Supervised contrastive loss (SupCon)."""

import torch
from mmdet.registry import MODELS

from .pair_criterion import (
    PairBatch,
    PairCriterion,
    Terms,
    compare_two_views,
    compared_pairs,
    counted_pairs,
    log_probabilities,
)


@MODELS.register_module()
class SupConLoss(PairCriterion):
    r"""Supervised contrastive loss over pairs of embeddings (arXiv 2004.11362, equation 2).

    The 2M embeddings are all anchors. Their positives :math:`P(i)` are the partner and all
    embeddings of the same label; every other embedding, :math:`A(i)`, is in the denominator (the
    paper's :math:`L^{sup}_{out}`), of a queue those of other labels:

    .. math::
        l_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(s_{ip} / \tau)}{\sum_{a \in A(i)} \exp(s_{ia} / \tau)}

    with cosine similarity :math:`s`. Where all labels differ, or are -1 (unknown), it is NT-Xent
    with ``negatives='all'``. Background embeddings are in denominators only.

    The value is that of pytorch-metric-learning; the authors' own code multiplies by
    ``temperature / base_temperature``, which ``loss_weight`` can do.

    Args:
        temperature (float): Temperature :math:`\tau`.
        loss_weight (float): Factor of the result.

    Examples:
        >>> loss = SupConLoss(temperature=0.1)
        >>> query, key = torch.randn(2, 8, 128)
        >>> loss(query, key, labels=torch.randint(3, (8,)))
    """

    has_chance_level = True

    def __init__(self, temperature: float = 0.1, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.temperature = temperature

    def terms(self, batch: PairBatch) -> Terms:
        """Compute two terms for each pair; see the base class."""
        count = 2 * batch.num_pairs
        negative = compared_pairs(batch, same_class=False)
        positive = (compared_pairs(batch, same_class=True) ^ negative).repeat(1, 2, 2)
        positive.diagonal(dim1=1, dim2=2).fill_(True)
        logits, candidates = compare_two_views(batch, self.temperature, negative)
        candidates[:, :, :count] |= positive
        scores = log_probabilities(logits, candidates)[:, :, :count]
        scores = torch.where(positive, scores, 0.0)
        values = -scores.sum(dim=2) / positive.sum(dim=2)
        return Terms(values, counted_pairs(batch).repeat(1, 2), candidates, logits)
