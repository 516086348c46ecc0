"""MMDetection's single-stage heads, and YOLOv8's, with the region-contrastive loss."""

from typing import Any, Dict, Optional, Sequence, Tuple, Union

from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RetinaHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from .yolov8_head import YOLOv8Head


class RegionContrastMixin:
    """Add :class:`RegionContrast` to any of MMDetection's single-stage heads.

    To be put before the head in the list of bases. The detection losses are the head's own and
    see the originals alone; prediction is not touched.

    Args:
        *args: Of the head.
        contrast (dict, optional): Config of ``RegionContrast``; channels, strides and classes are
            filled in from the head.
        **kwargs: Of the head.

    Examples:
        >>> @MODELS.register_module()
        ... class ContrastiveATSSHead(RegionContrastMixin, ATSSHead):
        ...     pass
    """

    # of the head
    prior_generator: Any
    in_channels: Union[int, Sequence[int]]
    num_classes: int

    def __init__(self, *args, contrast: Optional[dict] = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        strides = self.prior_generator.strides
        defaults = dict(
            type='RegionContrast',
            in_channels=self.in_channels,
            strides=[s[0] if isinstance(s, (tuple, list)) else s for s in strides],
            num_classes=self.num_classes,
        )
        self.contrast = MODELS.build(dict(defaults, **(contrast or {})))

    def loss(self, x: Tuple[Tensor], batch_data_samples: SampleList) -> Dict[str, Tensor]:
        """Compute the detection losses and the contrastive loss of each level.

        Args:
            x (tuple[Tensor]): Features (B, C, H_l, W_l) of each level; the N originals first,
                then the pictures of views.
            batch_data_samples (list[DetDataSample]): B samples as laid out by
                ``ContrastiveDataPreprocessor``.

        Returns:
            dict[str, Tensor]: The head's losses, ``loss_contrast_p3`` … and ``contrast_trust``.

        Raises:
            RuntimeError: If the pipeline makes no views though the sampler compares with them.
        """
        if self.contrast.wants_views and not any(
            'view' in sample.metainfo for sample in batch_data_samples
        ):
            raise RuntimeError(
                f'{type(self).__name__} got images without a second view: end the train_pipeline '
                'with ContrastiveView and PackContrastiveInputs and set model.data_preprocessor.'
                "type='ContrastiveDataPreprocessor', or contrast.sampler.type='JitteredBoxes'."
            )
        number = sum(not sample.metainfo.get('view', 0) for sample in batch_data_samples)
        losses = super().loss(tuple(level[:number] for level in x), batch_data_samples[:number])
        # of a head whose own losses grow with the batch
        factor = self.batch_factor(number) if hasattr(self, 'batch_factor') else 1.0
        for name, value in self.contrast(x, batch_data_samples).items():
            losses[name] = value * factor if 'loss' in name else value
        return losses


@MODELS.register_module()
class ContrastiveRetinaHead(RegionContrastMixin, RetinaHead):
    """``RetinaHead`` with :class:`RegionContrast` beside its own losses; see the mixin."""


@MODELS.register_module()
class ContrastiveFCOSHead(RegionContrastMixin, FCOSHead):
    """``FCOSHead`` with :class:`RegionContrast` beside its own losses; see the mixin."""


@MODELS.register_module()
class ContrastiveATSSHead(RegionContrastMixin, ATSSHead):
    """``ATSSHead`` with :class:`RegionContrast` beside its own losses; see the mixin."""


@MODELS.register_module()
class ContrastiveGFLHead(RegionContrastMixin, GFLHead):
    """``GFLHead`` with :class:`RegionContrast` beside its own losses; see the mixin."""


@MODELS.register_module()
class ContrastiveYOLOv8Head(RegionContrastMixin, YOLOv8Head):
    """``YOLOv8Head`` with :class:`RegionContrast` beside its own losses; see the mixin.

    The levels of YOLOv8 have different numbers of channels, so each has a projector of its own.
    With ``scale_by_batch`` the contrastive losses are multiplied by the number of images, too:
    their share in the whole does not depend on the batch and the processes.
    """
