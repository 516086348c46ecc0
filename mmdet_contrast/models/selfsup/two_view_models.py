"""Pre-training by two views of every image: SimSiam, SimCLR and what they share."""

from abc import ABCMeta, abstractmethod
from typing import Any, Dict, Optional, Sequence, Union, cast

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine import dist
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn

from ..losses.simsiam_loss import negative_cosine


class TwoViewModel(BaseModel, metaclass=ABCMeta):
    r"""Backbone that learns from two random views of every image, without annotations.

    The last output of the backbone is averaged over its positions and handed to a projector;
    :meth:`compare` makes losses of the embeddings of the two views. The backbone runs once for
    each view, so that BN has the statistics of one view, as in the published methods.

    The log shows ``embedding_std``: of every channel of the embeddings, scaled to length 1, the
    standard deviation (with N - 1) over the images of all processes, averaged over the channels,
    as :func:`~mmdet_contrast.evaluation.functional.embedding_std` computes it. Embeddings that fill
    the sphere have about :math:`1/\sqrt{d}`, a collapsed network, the same for every image, has 0.
    When the moving average falls below a fifth of :math:`1/\sqrt{d}` the log is warned, once.

    Args:
        backbone (dict): Config of any MMDetection backbone; ``out_indices`` should name the last
            stage alone.
        projector (dict): Config of the module between the averaged features and the embedding.
        data_preprocessor (dict, optional): Config, usually of ``MultiBranchDataPreprocessor``.
        init_cfg (dict, optional): Initialisation of the whole model.
    """

    # of the moving average of embedding_std; a single batch may be unusual
    _MOMENTUM = 0.9
    # parts of 1/sqrt(d), and iterations between two looks: each waits for the device
    _COLLAPSED, _INTERVAL = 0.2, 50

    def __init__(
        self,
        backbone: dict,
        projector: dict,
        data_preprocessor: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.projector = MODELS.build(projector)
        self._iterations = 0
        self._warned = False
        self._average_std: Optional[Tensor] = None

    @abstractmethod
    def compare(self, z1: Tensor, z2: Tensor) -> Dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            z1 (Tensor): (N, D) embeddings of the first views.
            z2 (Tensor): (N, D) embeddings of the second views, row by row of the same images.

        Returns:
            dict[str, Tensor]: Scalars; keys contain ``loss``.
        """

    def forward(
        self,
        inputs: Union[Tensor, Dict[str, Tensor]],
        data_samples: Any = None,
        mode: str = 'tensor',
    ) -> Union[Tensor, Dict[str, Tensor]]:
        """Compute losses or features.

        Args:
            inputs (dict[str, Tensor] | Tensor): For ``'loss'`` a dict of the two views, each
                (N, 3, H, W), as ``MultiBranch`` and ``MultiBranchDataPreprocessor`` give them.
                For ``'tensor'`` one batch (N, 3, H, W).
            data_samples (Any): Not used: nothing here needs annotations.
            mode (str): ``'loss'`` or ``'tensor'``.

        Returns:
            dict[str, Tensor] | Tensor: ``'loss'``: the losses and ``embedding_std``.
            ``'tensor'``: (N, C) averaged features of the backbone, for a kNN or linear evaluation.

        Raises:
            ValueError: If the mode is another one.
        """
        if mode == 'tensor':
            return self.extract_feat(cast(Tensor, inputs))
        if mode == 'loss':
            return self.loss(*inputs.values())
        raise ValueError(
            f'{type(self).__name__} got mode={mode!r}: pre-training predicts nothing, set '
            'val_dataloader, val_cfg and val_evaluator (and those of test) to None.'
        )

    def extract_feat(self, x: Tensor) -> Tensor:
        """Compute the averaged features of the backbone's last output.

        Args:
            x (Tensor): (N, 3, H, W) preprocessed images.

        Returns:
            Tensor: (N, C).
        """
        features = self.backbone(x)
        if isinstance(features, (tuple, list)):
            features = features[-1]
        return F.adaptive_avg_pool2d(features, 1).flatten(1)

    def loss(self, view1: Tensor, view2: Tensor) -> Dict[str, Tensor]:
        """Compute the losses of a batch and the spread of its embeddings.

        Args:
            view1 (Tensor): (N, 3, H, W) first views.
            view2 (Tensor): (N, 3, H, W) second views of the same images.

        Returns:
            dict[str, Tensor]: The losses, and ``embedding_std``, which is none, unless there is a
            single image.
        """
        z1, z2 = (self.projector(self.extract_feat(view)) for view in (view1, view2))
        losses = self.compare(z1, z2)
        std = self._spread(z1)
        if std is not None:
            losses['embedding_std'] = std
            self._watch(std, z1.shape[1])
        return losses

    @torch.no_grad()
    def _spread(self, z: Tensor) -> Optional[Tensor]:
        """Return the spread of the embeddings; None where a single one has none."""
        unit = F.normalize(z.detach().float(), dim=1)
        # in training every process is here; another one may not be when one of them evaluates
        if self.training:
            unit = torch.cat(dist.all_gather(unit))
        return unit.std(dim=0).mean() if len(unit) > 1 else None

    def _watch(self, std: Tensor, width: int) -> None:
        """Warn, once, when the spread of embeddings of some width stays near zero in training."""
        if not self.training:
            return
        self._average_std = (
            std if self._average_std is None else torch.lerp(std, self._average_std, self._MOMENTUM)
        )
        self._iterations += 1
        if not self._warned and self._iterations % self._INTERVAL == 0:
            average, healthy = float(self._average_std), width**-0.5
            if average < self._COLLAPSED * healthy:
                self._warned = True
                MMLogger.get_current_instance().warning(
                    f'{type(self).__name__} is collapsing: embedding_std is {average:.2g}, where '
                    f'1/sqrt(d) = {healthy:.2g} is healthy, so that all images get nearly the '
                    'same embedding; lower the learning rate, raise the batch size, or weaken '
                    'the weight decay, and check that the two views differ.'
                )


@MODELS.register_module()
class BatchNormMLP(BaseModule):
    """Linear layers, each but the last followed by BN and ReLU (SimSiam, arXiv 2011.10566).

    A linear layer that BN follows has no bias, because BN takes every constant away.

    Args:
        channels (Sequence[int]): Width of the input, of every hidden layer, of the output: three
            widths make two layers.
        last_norm (bool): Whether BN without affine parameters ends the last layer, which makes it
            the projector of SimSiam. Defaults to False: a predictor, which ends with a bias.

    Examples:
        >>> projector = BatchNormMLP((512, 2048, 2048, 2048), last_norm=True)
        >>> predictor = BatchNormMLP((2048, 512, 2048))
    """

    def __init__(self, channels: Sequence[int], last_norm: bool = False) -> None:
        super().__init__()
        layers = []
        for wide, narrow in zip(channels[:-2], channels[1:-1]):
            layers += [
                nn.Linear(wide, narrow, bias=False),
                nn.BatchNorm1d(narrow),
                nn.ReLU(inplace=True),
            ]
        layers.append(nn.Linear(channels[-2], channels[-1], bias=not last_norm))
        if last_norm:
            layers.append(nn.BatchNorm1d(channels[-1], affine=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors.

        Args:
            x (Tensor): (N, D), N > 1 in training, where BN needs two values of a channel.

        Returns:
            Tensor: (N, D'), not normalised to length 1.
        """
        return self.layers(x)


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
        **kwargs: As in :class:`TwoViewModel`: ``data_preprocessor``, ``init_cfg``.

    Examples:
        >>> model = SimSiam(
        ...     backbone=dict(type='ResNet', depth=18, out_indices=(3,), norm_eval=False),
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

    def compare(self, z1: Tensor, z2: Tensor) -> Dict[str, Tensor]:
        """Compute ``loss_simsiam``; see the base class."""
        p1, p2 = self.predictor(z1), self.predictor(z2)
        terms = 0.5 * negative_cosine(p1, z2) + 0.5 * negative_cosine(p2, z1)
        return dict(loss_simsiam=terms.mean())


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
        **kwargs: As in :class:`TwoViewModel`: ``data_preprocessor``, ``init_cfg``.

    Examples:
        >>> model = SimCLR(
        ...     backbone=dict(type='ResNet', depth=18, out_indices=(3,), norm_eval=False),
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
        """Compute ``loss_nt_xent``; see the base class.

        Raises:
            ValueError: If there is one pair, which has no negatives and a loss of 0.
        """
        if len(z1) < 2:
            raise ValueError(
                'SimCLR got a batch of one image, whose loss is 0: raise train_dataloader.'
                'batch_size, or set train_dataloader.drop_last=True.'
            )
        return dict(loss_nt_xent=self.criterion(z1, z2))
