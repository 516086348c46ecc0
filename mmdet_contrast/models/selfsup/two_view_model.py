"""What pre-training by two views of every image has in common."""

from abc import ABCMeta, abstractmethod
from typing import Any, Dict, List, Optional, Union

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine import dist
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from torch import Tensor, nn


class TwoViewModel(BaseModel, metaclass=ABCMeta):
    r"""Backbone that learns from two random views of every image, without annotations.

    The last output of the backbone is averaged over its positions and handed to a projector;
    :meth:`compare` makes losses of the embeddings of the two views. The backbone runs once for
    each view, so that BN has the statistics of one view, as in the published methods.

    The log shows ``embedding_std``: of every channel of the embeddings, scaled to length 1, the
    standard deviation (with N - 1) over the images of all processes, averaged over the channels,
    as :func:`~mmdet_contrast.evaluation.functional.embedding_std` computes it. Embeddings that fill
    the sphere have about :math:`1/\sqrt{d}`, a collapsed network, the same for every image, has 0.
    When the moving average falls below ``collapse_ratio`` times :math:`1/\sqrt{d}` the log is
    warned, once.

    Args:
        backbone (dict): Config of any MMDetection backbone; ``out_indices`` should name the last
            stage alone.
        projector (dict): Config of the module between the averaged features and the embedding.
        data_preprocessor (dict, optional): Config, usually of ``MultiBranchDataPreprocessor``.
        collapse_ratio (float): Part of :math:`1/\sqrt{d}` below which the warning is given.
        collapse_interval (int): Iterations between two looks at the moving average.
        init_cfg (dict, optional): Initialisation of the whole model.

    Raises:
        ValueError: If ``collapse_ratio`` is not in [0, 1) or ``collapse_interval`` not positive.
    """

    # of the moving average of embedding_std; a single batch may be unusual
    _MOMENTUM = 0.9

    def __init__(
        self,
        backbone: dict,
        projector: dict,
        data_preprocessor: Optional[dict] = None,
        collapse_ratio: float = 0.2,
        collapse_interval: int = 50,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        name = type(self).__name__
        if not 0 <= collapse_ratio < 1:
            raise ValueError(
                f'{name}(collapse_ratio={collapse_ratio}) given, a number in [0, 1) expected: the '
                'part of 1/sqrt(d) below which an embedding counts as collapsed, 0 to never warn.'
            )
        if collapse_interval < 1:
            raise ValueError(
                f'{name}(collapse_interval={collapse_interval}) given, a positive number of '
                'iterations expected.'
            )
        self.backbone = MODELS.build(backbone)
        self.projector = MODELS.build(projector)
        self.collapse_ratio = collapse_ratio
        self.collapse_interval = collapse_interval
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
            ValueError: If the inputs do not fit the mode.
        """
        if mode == 'tensor':
            if not isinstance(inputs, Tensor):
                raise ValueError(
                    f"{type(self).__name__}(mode='tensor') got inputs of type "
                    f'{type(inputs).__name__}, one tensor (N, 3, H, W) expected.'
                )
            return self.extract_feat(inputs)
        if mode == 'loss':
            return self.loss(*self._views(inputs))
        raise ValueError(
            f"{type(self).__name__} got mode={mode!r}, 'loss' or 'tensor' expected: pre-training "
            'predicts nothing, so set val_dataloader, val_cfg and val_evaluator (and those of '
            'test) to None.'
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

        Raises:
            ValueError: If the batch is one image, or the projector does not fit the backbone.
        """
        self._check_batch(len(view1))
        z1, z2 = self._embed(view1), self._embed(view2)
        losses = self.compare(z1, z2)
        std = self._spread(z1)
        if std is not None:
            losses['embedding_std'] = std
            self._watch(std, z1.shape[1])
        return losses

    def _embed(self, view: Tensor) -> Tensor:
        """Return the embeddings of a view, (N, D)."""
        features = self.extract_feat(view)
        expected = getattr(self.projector, 'in_channels', features.shape[1])
        if features.shape[1] != expected:
            raise ValueError(
                f'the last output of the backbone has {features.shape[1]} channels and the '
                f'projector takes {expected}: set the first width of model.projector to '
                f'{features.shape[1]}, or backbone.out_indices to the stage that has {expected}.'
            )
        return self.projector(features)

    def _views(self, inputs: Any) -> List[Tensor]:
        """Return the two views of the batch, checked."""
        views = list(inputs.values()) if isinstance(inputs, dict) else []
        shapes = [tuple(view.shape) for view in views if isinstance(view, Tensor)]
        if len(views) != 2 or len(shapes) != 2 or shapes[0][0] != shapes[1][0]:
            given = (
                f'a dict of {dict(zip(inputs, shapes)) or list(inputs)}'
                if isinstance(inputs, dict)
                else type(inputs).__name__
            )
            raise ValueError(
                f'{type(self).__name__} got {given}, a dict of two batches (N, 3, H, W) expected: '
                "end the pipeline with dict(type='MultiBranch', branch_field=['view1', 'view2'], "
                'view1=..., view2=...) and use data_preprocessor=dict(type='
                "'MultiBranchDataPreprocessor', ...)."
            )
        return views

    def _check_batch(self, size: int) -> None:
        """Refuse a batch that BN cannot normalise."""
        if size > 1 or not self.training:
            return
        if size == 1 and not any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) and not isinstance(m, nn.SyncBatchNorm)
            for m in self.modules()
        ):
            return
        raise ValueError(
            f'{type(self).__name__} got a batch of {size} image(s), 2 or more expected, because '
            'batch normalisation needs two values of a channel: raise train_dataloader.batch_size, '
            'and set train_dataloader.drop_last=True, as the last batch of an epoch may be '
            'smaller.'
        )

    @torch.no_grad()
    def _spread(self, z: Tensor) -> Optional[Tensor]:
        """Return the spread of the embeddings; None where a single one has none."""
        # in training every process is here; another one may not be when one of them evaluates
        world = dist.get_world_size() if self.training else 1
        count = len(z) * world
        if count < 2:
            return None
        unit = F.normalize(z.detach().float(), dim=1)
        mean = unit.mean(dim=0)
        if world > 1:
            dist.all_reduce(mean, 'mean')
        squares = (unit - mean).square().mean(dim=0)
        if world > 1:
            dist.all_reduce(squares, 'mean')
        return (squares * count / (count - 1)).sqrt().mean()

    def _watch(self, std: Tensor, width: int) -> None:
        """Warn, once, when the spread of embeddings of some width stays near zero in training."""
        if not self.training:
            return
        self._average_std = (
            std if self._average_std is None else torch.lerp(std, self._average_std, self._MOMENTUM)
        )
        self._iterations += 1
        # the value is fetched from the device only now and then
        if not self._warned and self._iterations % self.collapse_interval == 0:
            average, healthy = float(self._average_std), width**-0.5
            if average < self.collapse_ratio * healthy:
                self._warned = True
                MMLogger.get_current_instance().warning(
                    f'{type(self).__name__} is collapsing: embedding_std is {average:.2g}, where '
                    f'1/sqrt(d) = {healthy:.2g} is healthy, so that all images get nearly the '
                    'same embedding; lower the learning rate, raise the batch size, or weaken '
                    'the weight decay, and check that the two views differ.'
                )
