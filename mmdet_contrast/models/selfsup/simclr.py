"""SimCLR."""

from typing import Any, Dict

from mmdet.registry import MODELS
from torch import Tensor

from .two_view_model import TwoViewModel


@MODELS.register_module()
class SimCLR(TwoViewModel):
    """Pre-training of a backbone with NT-Xent alone (SimCLR, arXiv 2002.05709).

    The two views of an image are a positive pair; all other views of the batch are negatives.
    Negatives come from the images of one process.

    Args:
        backbone (dict): Config of any MMDetection backbone, ``out_indices`` the last stage.
        projector (dict): Config of the projector, usually an ``MLPProjector``.
        criterion (dict): Config of a criterion over pairs: ``criterion(z1, z2)``, a scalar.
            Usually ``dict(type='NTXentLoss', temperature=0.5, negatives='all')``.
        **kwargs: As in :class:`TwoViewModel`: ``data_preprocessor``, ``collapse_ratio``,
            ``collapse_interval``, ``init_cfg``.

    Examples:
        >>> model = SimCLR(
        ...     backbone=dict(type='ResNet', depth=18, out_indices=(3,)),
        ...     projector=dict(type='MLPProjector', in_channels=512),
        ...     criterion=dict(type='NTXentLoss', temperature=0.5, negatives='all'),
        ... )
        >>> views = dict(view1=torch.rand(2, 3, 64, 64), view2=torch.rand(2, 3, 64, 64))
        >>> sorted(model(views, mode='loss'))
        ['embedding_std', 'loss_nt_xent']
    """

    def __init__(self, backbone: dict, projector: dict, criterion: dict, **kwargs: Any) -> None:
        super().__init__(backbone, projector, **kwargs)
        self.criterion = MODELS.build(criterion)

    def compare(self, z1: Tensor, z2: Tensor) -> Dict[str, Tensor]:
        """Compute the loss of all pairs of the batch.

        Args:
            z1 (Tensor): (N, D) embeddings of the first views.
            z2 (Tensor): (N, D) embeddings of the second views.

        Returns:
            dict[str, Tensor]: ``loss_nt_xent``, a scalar.

        Raises:
            ValueError: If there is one pair, which has no negatives and a loss of 0.
        """
        if len(z1) < 2:
            raise ValueError(
                f'SimCLR got a batch of {len(z1)} image(s), 2 or more expected, because the other '
                'images of the batch are the negatives: raise train_dataloader.batch_size, and set '
                'train_dataloader.drop_last=True, as the last batch of an epoch may be smaller.'
            )
        return dict(loss_nt_xent=self.criterion(z1, z2))
