"""Triplet loss."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from .pair_criterion import (
    PairBatch,
    PairCriterion,
    Terms,
    compared_pairs,
    compared_rows,
    counted_pairs,
    partners_of,
)


# MMDetection has another 'TripletLoss', of re-identification, in the same registry
@MODELS.register_module(name='PairTripletLoss')
class TripletLoss(PairCriterion):
    r"""Triplet loss over pairs of embeddings (FaceNet, arXiv 1503.03832).

    Each of the 2M embeddings is an anchor, its partner the positive, embeddings of other classes
    (without labels: all others) and background are the negatives :math:`N(i)`. With the distance
    :math:`d = 1 - \cos` the term of an anchor is

    .. math::
        l_i = \frac{1}{|N(i)|} \sum_{n \in N(i)} \max(d_{i i^+} - d_{in} + m, 0)

    and 0 where there are none. In a config its name is ``'PairTripletLoss'``: ``'TripletLoss'`` is
    MMDetection's loss of re-identification.

    Args:
        margin (float): Margin :math:`m`.
        loss_weight (float): Factor of the result.

    Examples:
        >>> loss = TripletLoss(margin=0.2)
        >>> query, key = torch.randn(2, 8, 128)
        >>> loss(query, key, labels=torch.randint(3, (8,)))
    """

    def __init__(self, margin: float = 0.2, loss_weight: float = 0.1) -> None:
        super().__init__(loss_weight)
        self.margin = margin

    def terms(self, batch: PairBatch) -> Terms:
        """Compute two terms for each pair; see the base class."""
        rows = F.normalize(batch.rows, dim=2)
        distances = 1 - partners_of(rows, batch.num_pairs) @ rows.transpose(1, 2)
        positive = distances.diagonal(dim1=1, dim2=2)[..., None]
        negatives = compared_rows(compared_pairs(batch, same_class=False), batch, views=2)
        values = torch.where(negatives, F.relu(positive - distances + self.margin), 0.0)
        values = values.sum(dim=2) / negatives.sum(dim=2).clamp(min=1)
        return Terms(values, counted_pairs(batch).repeat(1, 2))
