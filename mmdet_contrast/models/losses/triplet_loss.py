"""Triplet loss."""

from typing import Tuple

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from ._pairs import PairCriterion, Pairs, check_choice

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
        margin (float): Margin :math:`m`, > 0.
        distance (str): ``'cosine'``: :math:`1 - \cos`. ``'euclidean'``: between the embeddings
            as they are, not normalised.
        mining (str): ``'all'``: every negative. ``'hard'``: the nearest. ``'semi_hard'``: those
            that are farther away than the partner, but by less than the margin.
        loss_weight (float): Factor of the result.

    Examples:
        >>> loss = TripletLoss(margin=0.2, mining='semi_hard')
        >>> query, key = torch.randn(8, 128), torch.randn(8, 128)
        >>> loss(query, key, labels=torch.randint(3, (8,)))
    """

    def __init__(
        self,
        margin: float = 0.2,
        distance: str = 'cosine',
        mining: str = 'all',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        if not margin > 0:
            raise ValueError(f'TripletLoss got margin={margin}, a number above 0 expected.')
        check_choice('TripletLoss', 'distance', distance, DISTANCES)
        check_choice('TripletLoss', 'mining', mining, MINING)
        self.margin = margin
        self.distance = distance
        self.mining = mining

    def terms(self, pairs: Pairs) -> Tensor:
        """Compute the terms of the anchors; see the base class."""
        distances, positive, negatives = self._distances(pairs)
        if self.mining == 'hard':
            nearest = distances.masked_fill(~negatives, float('inf')).amin(dim=1)
            return F.relu(positive - nearest + self.margin)
        if self.mining == 'semi_hard':
            gap = distances.detach() - positive.detach()[:, None]
            negatives = negatives & (gap > 0) & (gap < self.margin)
        terms = F.relu(positive[:, None] - distances + self.margin).masked_fill(~negatives, 0)
        return terms.sum(dim=1) / negatives.sum(dim=1).clamp(min=1)

    def _distances(self, pairs: Pairs) -> Tuple[Tensor, Tensor, Tensor]:
        """Compare the anchors with everything.

        Returns:
            tuple[Tensor, Tensor, Tensor]: (2A, 2M + K) distances, (2A,) distances of the
            partners, and (2A, 2M + K) bool, which are negatives.
        """
        dtype = torch.promote_types(pairs.query.dtype, torch.float32)
        embeddings = torch.cat((pairs.query, pairs.key)).to(dtype)
        count, device = len(pairs.query), embeddings.device
        chosen = torch.arange(count, device=device)
        if pairs.anchors is not None:
            chosen = chosen[pairs.anchors]
        other = chosen[:, None] != torch.arange(count, device=device)
        if pairs.labels is not None:
            label = pairs.labels[chosen][:, None]
            other &= (label != pairs.labels) | (label < 0)
        if pairs.groups is not None:
            other &= pairs.groups[chosen][:, None] == pairs.groups
        negatives = other.repeat(2, 2)
        candidates = embeddings
        if pairs.background is not None:
            candidates = torch.cat((embeddings, pairs.background.to(dtype)))
            mask = pairs.background_mask
            if mask is None:
                mask = other.new_ones(count, len(pairs.background))
            negatives = torch.cat((negatives, mask[chosen].repeat(2, 1)), dim=1)
        anchors = embeddings[torch.cat((chosen, chosen + count))]
        if self.distance == 'cosine':
            distances = 1 - F.normalize(anchors, dim=1) @ F.normalize(candidates, dim=1).T
        else:
            # by matrix products small distances would be lost to cancellation
            mode = 'donot_use_mm_for_euclid_dist'
            distances = torch.cdist(anchors, candidates, compute_mode=mode)
        partner = torch.cat((chosen + count, chosen))
        return distances, distances.gather(1, partner[:, None])[:, 0], negatives
