"""Triplet loss."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from .pair_criterion import (
    PairBatch,
    PairCriterion,
    Terms,
    compared_pairs,
    compared_rows,
    counted_pairs,
    partners_of,
)

DISTANCES = ('cosine', 'euclidean')
MINING = ('all', 'hard', 'semi_hard')


# MMDetection has another 'TripletLoss', of re-identification, in the same registry
@MODELS.register_module(name='PairTripletLoss')
class TripletLoss(PairCriterion):
    r"""Triplet loss over pairs of embeddings (FaceNet, arXiv 1503.03832).

    Each of the 2M embeddings is an anchor, its partner the positive, embeddings of other classes
    (without labels: all others) and background are negatives. The term of an anchor is the mean
    over the negatives :math:`N(i)` that the mining chooses,

    .. math::
        l_i = \frac{1}{|N(i)|} \sum_{n \in N(i)} \max(d_{i i^+} - d_{in} + m, 0)

    and 0 where there are none. In a config its name is ``'PairTripletLoss'``: ``'TripletLoss'`` is
    MMDetection's loss of re-identification.

    Args:
        margin (float): Margin :math:`m`.
        distance (str): ``'cosine'``: :math:`1 - \cos`. ``'euclidean'``: between the embeddings
            as they are, not normalised.
        mining (str): ``'all'``: every negative. ``'hard'``: the nearest. ``'semi_hard'``: those
            that are farther away than the partner, but by less than the margin.
        loss_weight (float): Factor of the result.

    Examples:
        >>> loss = TripletLoss(margin=0.2, mining='semi_hard')
        >>> query, key = torch.randn(2, 8, 128)
        >>> loss(query, key, labels=torch.randint(3, (8,)))
    """

    def __init__(
        self,
        margin: float = 0.2,
        distance: str = 'cosine',
        mining: str = 'all',
        loss_weight: float = 0.1,
    ) -> None:
        super().__init__(loss_weight)
        # anything else would silently be 'euclidean' or 'all'
        if distance not in DISTANCES or mining not in MINING:
            raise ValueError(
                f'TripletLoss got distance={distance!r} and mining={mining!r}, one of {DISTANCES} '
                f'and one of {MINING} expected.'
            )
        self.margin = margin
        self.distance = distance
        self.mining = mining

    def terms(self, batch: PairBatch) -> Terms:
        """Compute two terms for each pair; see the base class."""
        count = batch.num_pairs
        distances = self._distances(batch.rows, count)
        negatives = compared_rows(compared_pairs(batch, same_class=False), batch, views=2)
        positive = distances.diagonal(dim1=1, dim2=2)[..., None]
        counted = counted_pairs(batch).repeat(1, 2)
        if self.mining == 'hard':
            # one column more, for anchors without negatives
            nearest = F.pad(
                distances.masked_fill(~negatives, float('inf')), (0, 1), value=float('inf')
            )
            nearest = nearest.amin(dim=2)
            return Terms(F.relu(positive[..., 0] - nearest + self.margin), counted)
        if self.mining == 'semi_hard':
            gap = distances.detach() - positive.detach()
            negatives = negatives & (gap > 0) & (gap < self.margin)
        values = torch.where(negatives, F.relu(positive - distances + self.margin), 0.0)
        return Terms(values.sum(dim=2) / negatives.sum(dim=2).clamp(min=1), counted)

    def _distances(self, rows: Tensor, count: int) -> Tensor:
        """Return the (L, 2M, 2M + K) distances of keys and queries from all rows."""
        if self.distance == 'cosine':
            rows = F.normalize(rows, dim=2)
            return 1 - partners_of(rows, count) @ rows.transpose(1, 2)
        # by matrix products small distances would be lost to cancellation
        anchors = partners_of(rows, count)
        return torch.cdist(anchors, rows, compute_mode='donot_use_mm_for_euclid_dist')
