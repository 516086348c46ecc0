"""SimSiam."""

from typing import Any, Dict

from mmdet.registry import MODELS
from torch import Tensor

from ..losses.simsiam_loss import negative_cosine
from .two_view_model import TwoViewModel


@MODELS.register_module()
class SimSiam(TwoViewModel):
    r"""SimSiam pre-training of a backbone (arXiv 2011.10566, algorithm 1).

    .. math:: L = \tfrac12 D(p_1, \mathrm{sg}(z_2)) + \tfrac12 D(p_2, \mathrm{sg}(z_1)),
        \qquad D(p, z) = -\frac{1}{N} \sum_i
        \frac{\langle p_i, z_i \rangle}{\lVert p_i \rVert \lVert z_i \rVert}

    with the embeddings :math:`z` of the projector, the predictions :math:`p` of the predictor and
    the stop-gradient sg, without which the network collapses. The loss lies in [-1, 1] and falls
    towards -1. The predictor should keep its learning rate while that of the rest decays:
    ``ConstantLRHook`` sees to it.

    Args:
        backbone (dict): Config of any MMDetection backbone, ``out_indices`` the last stage.
        projector (dict): Config of the projector, usually a ``BatchNormMLP`` of three layers with
            ``last_norm=True``.
        predictor (dict): Config of the predictor, usually a ``BatchNormMLP`` of two layers with a
            narrow hidden one.
        **kwargs: As in :class:`TwoViewModel`: ``data_preprocessor``, ``collapse_ratio``,
            ``collapse_interval``, ``init_cfg``.

    Raises:
        ValueError: If the predictor's input or output differs from the projector's output.

    Examples:
        >>> model = SimSiam(
        ...     backbone=dict(type='ResNet', depth=18, out_indices=(3,)),
        ...     projector=dict(
        ...         type='BatchNormMLP', channels=(512, 2048, 2048, 2048), last_norm=True
        ...     ),
        ...     predictor=dict(type='BatchNormMLP', channels=(2048, 512, 2048)),
        ... )
        >>> views = dict(view1=torch.rand(2, 3, 64, 64), view2=torch.rand(2, 3, 64, 64))
        >>> sorted(model(views, mode='loss'))
        ['embedding_std', 'loss_simsiam']
    """

    def __init__(self, backbone: dict, projector: dict, predictor: dict, **kwargs: Any) -> None:
        super().__init__(backbone, projector, **kwargs)
        self.predictor = MODELS.build(predictor)
        width = getattr(self.projector, 'out_channels', None)
        ends = [getattr(self.predictor, name, width) for name in ('in_channels', 'out_channels')]
        if width is not None and ends != [width, width]:
            raise ValueError(
                f'SimSiam got a predictor from {ends[0]} to {ends[1]} channels and a projector '
                f'that gives {width}: the first and last width of model.predictor have to be '
                f'{width}.'
            )

    def compare(self, z1: Tensor, z2: Tensor) -> Dict[str, Tensor]:
        """Compute the symmetric loss.

        Args:
            z1 (Tensor): (N, D) embeddings of the first views.
            z2 (Tensor): (N, D) embeddings of the second views.

        Returns:
            dict[str, Tensor]: ``loss_simsiam``, a scalar in [-1, 1].
        """
        p1, p2 = self.predictor(z1), self.predictor(z2)
        terms = 0.5 * negative_cosine(p1, z2) + 0.5 * negative_cosine(p2, z1)
        return dict(loss_simsiam=terms.mean())
