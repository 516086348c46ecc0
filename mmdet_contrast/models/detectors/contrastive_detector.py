"""A single-stage detector that chooses how second views pass through it."""

from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, List, Optional, Tuple, Union

import torch
from mmcv.ops import SyncBatchNorm as MMSyncBatchNorm
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_NORMS = ('joint', 'train', 'batch', 'eval')


@MODELS.register_module()
class ContrastiveDetector(SingleStageDetector):
    """``SingleStageDetector`` whose second views may pass without gradient and on their own.

    MMDetection's RetinaNet, FCOS, ATSS, GFL … are ``SingleStageDetector`` by another name, so
    ``type='ContrastiveDetector'`` takes their place in any of their configs; weights have the same
    names in both, and outside of training there is no difference. YOLOv8 has
    ``ContrastiveYOLOv8Detector``. The views are those of ``ContrastiveDataPreprocessor``, whole or
    on canvases.

    Without gradient a view costs one forward pass and no backward pass; its embeddings are then
    fixed targets for backbone and neck, as the keys of MoCo (arXiv 1911.05722) and BYOL (arXiv
    2006.07733) are. The projector still learns from both sides; ``contrast.detach_keys`` ends that,
    too.

    Args:
        *args: As in ``SingleStageDetector``.
        view_grad (bool): Whether gradients flow back through the views into backbone and neck.
        view_norm (str, optional): How batch normalisation in training mode treats the views:

            - ``'joint'``: one pass for originals and views, with the statistics of all (as in
              the stock detectors; needs ``view_grad``);
            - ``'train'``: a pass of their own with their own statistics, which update the running
              ones, too;
            - ``'batch'``: the same, but the running statistics, used at test time, come from the
              originals alone;
            - ``'eval'``: a pass of their own with the running statistics.

            Defaults to ``'joint'`` with ``view_grad`` and to ``'batch'`` without.
        **kwargs: As in ``SingleStageDetector``.

    Raises:
        ValueError: If ``view_norm`` is unknown or does not go with ``view_grad``, or if the head's
            detection losses would see views that have no gradient.

    Examples:
        >>> _base_ = './retina_contrast_coco.py'
        >>> model = dict(type='ContrastiveDetector', view_grad=False)
    """

    def __init__(
        self, *args, view_grad: bool = True, view_norm: Optional[str] = None, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        name = type(self).__name__
        if view_norm is None:
            view_norm = 'joint' if view_grad else 'batch'
        if view_norm not in _NORMS:
            raise ValueError(f'{name} got view_norm={view_norm!r}, one of {_NORMS} expected.')
        if view_norm == 'joint' and not view_grad:
            raise ValueError(
                f"{name} got view_norm='joint' and view_grad=False: one pass for all has a "
                f'gradient for all; set view_norm to one of {_NORMS[1:]}.'
            )
        train_views = getattr(self.bbox_head, 'train_views', None)
        if not view_grad and train_views != 'originals':
            # a head without the contrastive loss takes views for images
            head = f'bbox_head.train_views={train_views!r}'
            if train_views is None:
                head = f'bbox_head.type={type(self.bbox_head).__name__!r}'
            raise ValueError(
                f'{name} got view_grad=False and {head}: detection losses on the views would not '
                "reach the backbone; set a contrastive head with bbox_head.train_views='originals' "
                'or view_grad=True.'
            )
        self.view_grad = view_grad
        self.view_norm = view_norm
        # what is repeated, and which norms learn, is known when training has begun
        self._checked = False

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> Union[Dict[str, Tensor], List]:
        """Compute the head's losses on the features of originals and views.

        Args:
            batch_inputs (Tensor): (B, C, H, W): the N originals, then views or canvases.
            batch_data_samples (list[DetDataSample]): B samples.

        Returns:
            dict[str, Tensor]: The losses of the head.

        Raises:
            ValueError: If modules repeat their pass backwards (``with_cp=True``) whose batch
                normalisation is to treat the views apart, or if that is mmcv's ``SyncBatchNorm``.
        """
        if self.view_norm == 'joint':
            return super().loss(batch_inputs, batch_data_samples)
        if not self._checked:
            self._refuse_other_sync_bn()
            if self.view_grad and self.view_norm in ('batch', 'eval'):
                self._refuse_repetition()
            self._checked = True
        number = sum(not s.metainfo.get('view', 0) for s in batch_data_samples)
        # the originals first: autocast keeps the casts of weights, and those made without
        # gradient would have none for the originals either
        feats = self.extract_feat(batch_inputs[:number])
        views = batch_inputs[number:]
        if len(views) or self._synchronises():
            # without a view of one's own, the originals stand in, and are cut off: the other
            # ranks wait for this one in every SyncBN
            passed = self._extract_view_feat(views if len(views) else batch_inputs)
            feats = tuple(torch.cat((f, v[: len(views)])) for f, v in zip(feats, passed))
        return self.bbox_head.loss(feats, batch_data_samples)

    def _extract_view_feat(self, inputs: Tensor) -> Tuple[Tensor, ...]:
        """Return the features of the views."""
        with ExitStack() as stack:
            if not self.view_grad:
                stack.enter_context(torch.no_grad())
            if self.view_norm == 'batch':
                stack.enter_context(_keep_running_statistics(self))
            elif self.view_norm == 'eval':
                stack.enter_context(_running_statistics(self))
            return self.extract_feat(inputs)

    def _refuse_other_sync_bn(self) -> None:
        if self.view_norm == 'train':
            return
        if any(isinstance(m, MMSyncBatchNorm) and m.training for m in self.modules()):
            raise ValueError(
                f"{type(self).__name__} got view_norm={self.view_norm!r} and mmcv's SyncBatchNorm "
                '(MMSyncBN), whose running statistics the views would change: use that of PyTorch '
                "(norm_cfg.type='SyncBN', or sync_bn='torch'), or view_norm='train'."
            )

    def _refuse_repetition(self) -> None:
        norms = set(_training_norms(self))
        for name, module in self.named_modules():
            if getattr(module, 'with_cp', False) and norms & set(module.modules()):
                raise ValueError(
                    f'{type(self).__name__} got view_norm={self.view_norm!r}, view_grad=True and '
                    f'{name}.with_cp=True: that pass is repeated backwards, when its batch '
                    'normalisation no longer treats the views apart; set with_cp=False, or '
                    "view_norm to 'joint' or 'train'."
                )

    def _synchronises(self) -> bool:
        """Tell whether a pass of the views waits for other ranks."""
        if get_world_size() == 1 or self.view_norm == 'eval':
            return False
        kinds = (nn.SyncBatchNorm, MMSyncBatchNorm)
        return any(isinstance(layer, kinds) and layer.training for layer in self.modules())


def _training_norms(model: nn.Module) -> List[_BatchNorm]:
    """Return the batch normalisations that use the statistics of the batch."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]


@contextmanager
def _keep_running_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise with the statistics of the batch, and leave the running ones as they are."""
    layers = [m for m in _training_norms(model) if m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@contextmanager
def _running_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise with the running statistics."""
    layers = _training_norms(model)
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True
