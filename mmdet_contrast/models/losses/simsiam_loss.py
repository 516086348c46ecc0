"""SimSiam loss: agreement without negatives."""

from typing import Optional

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ._pairs import PairCriterion, Pairs, check_choice


class _BatchNorm(nn.Module):
    """Batch normalisation by the rows at hand.

    Without running statistics, as no predictor is used at test time, and no ``nn.BatchNorm1d``:
    as a ``SyncBatchNorm`` it would wait for processes that have no pair in this iteration.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (M, channels), M > 1."""
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


_NORMS = dict(LN=nn.LayerNorm, BN=_BatchNorm)


def negative_cosine(p: Tensor, z: Tensor, reduction: str = 'mean') -> Tensor:
    r"""Compute :math:`D(p, sg(z)) = -\cos(p, z)` (SimSiam, arXiv 2011.10566, equation 1).

    The target gets no gradient: without that the embeddings collapse.

    Args:
        p (Tensor): (M, D) predictions.
        z (Tensor): (M, D) targets, detached here.
        reduction (str): ``'mean'`` over the rows or ``'none'``.

    Returns:
        Tensor: Scalar, or (M,), in float32 or float64, in [-1, 1]; the mean of no row is 0 and
        connected to ``p``.

    Raises:
        ValueError: If the shapes differ or are not two-dimensional.

    Examples:
        >>> 0.5 * negative_cosine(p1, z2) + 0.5 * negative_cosine(p2, z1)
    """
    check_choice('negative_cosine', 'reduction', reduction, ('mean', 'none'))
    if p.dim() != 2 or p.shape != z.shape:
        raise ValueError(
            f'negative_cosine got p of shape {tuple(p.shape)} and z of shape {tuple(z.shape)}, '
            'two tensors of one shape (M, D) expected.'
        )
    dtype = torch.promote_types(p.dtype, torch.float32)
    with torch.autocast(device_type=p.device.type, enabled=False):
        values = -F.cosine_similarity(p.to(dtype), z.detach().to(dtype), dim=1)
        return values if reduction == 'none' else values.sum() / max(len(values), 1)


@MODELS.register_module()
class SimSiamLoss(PairCriterion):
    r"""SimSiam loss of pairs of embeddings, with its predictor (arXiv 2011.10566).

    A two-layer predictor :math:`h` maps each view's embedding to the other view's, which is a
    target without gradient:

    .. math::
        L = \frac{1}{2} D(h(q), sg(k)) + \frac{1}{2} D(h(k), sg(q)), \qquad D(p, z) = -\cos(p, z)

    There are no negatives: labels, groups and background are not used. The value is the published
    one, in [-1, 1]; -1 is full agreement.

    Args:
        in_channels (int): Length D of the embeddings: ``out_channels`` of the projector.
        hidden_channels (int, optional): Width of the predictor. Defaults to a quarter of
            ``in_channels``, as published.
        norm (str, optional): Normalisation of the hidden layer: None, ``'LN'``, or ``'BN'`` as
            published, but with the statistics of both views together, so that one pair suffices,
            and of each process for itself.
        loss_weight (float): Factor of the result.

    Examples:
        >>> loss = SimSiamLoss(in_channels=128)
        >>> query, key = torch.randn(8, 128), torch.randn(8, 128)
        >>> loss(query, key)
    """

    uses_negatives = False

    def __init__(
        self,
        in_channels: int = 128,
        hidden_channels: Optional[int] = None,
        norm: Optional[str] = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        check_choice('SimSiamLoss', 'norm', norm, (None, *_NORMS))
        hidden_channels = max(in_channels // 4, 1) if hidden_channels is None else hidden_channels
        if in_channels < 1 or hidden_channels < 1:
            raise ValueError(
                f'SimSiamLoss got in_channels={in_channels} and hidden_channels='
                f'{hidden_channels}, at least 1 expected of both.'
            )
        self.in_channels = in_channels
        layers = [nn.Linear(in_channels, hidden_channels, bias=norm != 'BN')]
        if norm is not None:
            layers.append(_NORMS[norm](hidden_channels))
        layers += [nn.ReLU(inplace=True), nn.Linear(hidden_channels, in_channels)]
        self.predictor = nn.Sequential(*layers)

    def prepare(self, pairs: Pairs) -> Pairs:
        """Check the length of the embeddings and drop what is not used; see the base class."""
        if pairs.query.shape[1] != self.in_channels:
            raise ValueError(
                f'SimSiamLoss has a predictor for embeddings of length {self.in_channels} and got '
                f'{pairs.query.shape[1]}: set criterion.in_channels to the out_channels of the '
                'projector.'
            )
        return pairs._replace(background=None, background_mask=None)

    def terms(self, pairs: Pairs) -> Tensor:
        """Compute the anchors' negative cosines, from the queries, then from the keys."""
        query, key = pairs.query, pairs.key
        if pairs.anchors is not None:
            query, key = query[pairs.anchors], key[pairs.anchors]
        rows = torch.cat((query, key)).to(self.predictor[0].weight.dtype)
        return negative_cosine(self.predictor(rows), torch.cat((key, query)), reduction='none')
