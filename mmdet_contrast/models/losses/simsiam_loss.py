"""SimSiam loss: agreement without negatives."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from .pair_criterion import PairBatch, PairCriterion, Terms, counted_pairs, partners_of


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    r"""Compute :math:`D(p, sg(z)) = -\cos(p, z)` (SimSiam, arXiv 2011.10566, equation 1).

    The target gets no gradient: without that the embeddings collapse.

    Args:
        p (Tensor): (..., D) predictions.
        z (Tensor): (..., D) targets, detached here.

    Returns:
        Tensor: (...) in float32 or float64, in [-1, 1].

    Examples:
        >>> (0.5 * negative_cosine(p1, z2) + 0.5 * negative_cosine(p2, z1)).mean()
    """
    dtype = torch.promote_types(p.dtype, torch.float32)
    with torch.autocast(device_type=p.device.type, enabled=False):
        return -F.cosine_similarity(p.to(dtype), z.detach().to(dtype), dim=-1)


@MODELS.register_module()
class SimSiamLoss(PairCriterion):
    r"""SimSiam loss of pairs of embeddings, with its predictor (arXiv 2011.10566).

    A two-layer predictor :math:`h`, a quarter as wide inside, maps each view's embedding to the
    other view's, which is a target without gradient:

    .. math::
        L = \frac{1}{2} D(h(q), sg(k)) + \frac{1}{2} D(h(k), sg(q)), \qquad D(p, z) = -\cos(p, z)

    There are no negatives: labels, groups and background are not used. The value is the published
    one, in [-1, 1]; -1 is full agreement. As nothing tells whether it has learned anything, its
    weight is small.

    Args:
        in_channels (int): Length D of the embeddings: ``out_channels`` of the projector.
        loss_weight (float): Factor of the result.

    Examples:
        >>> loss = SimSiamLoss(in_channels=128)
        >>> query, key = torch.randn(2, 8, 128)
        >>> loss(query, key)
    """

    uses_negatives = False

    def __init__(self, in_channels: int = 128, loss_weight: float = 0.1) -> None:
        super().__init__(loss_weight)
        hidden_channels = max(in_channels // 4, 1)
        self.predictor = nn.Sequential(
            nn.Linear(in_channels, hidden_channels),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_channels, in_channels),
        )

    def terms(self, batch: PairBatch) -> Terms:
        """Compute two terms for each pair; see the base class."""
        rows = batch.rows.to(next(self.predictor.parameters()).dtype)
        count = batch.num_pairs
        values = negative_cosine(self.predictor(rows[:, : 2 * count]), partners_of(rows, count))
        return Terms(values, counted_pairs(batch).repeat(1, 2))
