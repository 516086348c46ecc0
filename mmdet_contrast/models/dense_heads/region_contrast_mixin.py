"""Mixin that adds the contrastive loss to a dense head."""

from typing import Dict, List, Optional, Sequence, Tuple

from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor


class RegionContrastMixin:
    """Add :class:`RegionContrast` to any of MMDetection's single-stage heads.

    To be put before the head in the list of bases. The detection losses are the head's own;
    prediction is not touched.

    Args:
        *args: Of the head.
        contrast (dict, optional): Config of ``RegionContrast``; channels and strides are filled
            in from the head.
        train_views (str): What the detection losses see: ``'originals'``, or ``'both'`` views.
        **kwargs: Of the head.

    Examples:
        >>> @MODELS.register_module()
        ... class ContrastiveATSSHead(RegionContrastMixin, ATSSHead):
        ...     pass
    """

    def __init__(
        self,
        *args,
        contrast: Optional[dict] = None,
        train_views: str = 'originals',
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if train_views not in ('originals', 'both'):
            raise ValueError(
                f'{type(self).__name__} got train_views={train_views!r}, '
                "'originals' or 'both' expected."
            )
        self.train_views = train_views
        strides = [
            s[0] if isinstance(s, (tuple, list)) else s for s in self.prior_generator.strides
        ]
        defaults = dict(
            type='RegionContrast',
            in_channels=self.in_channels,
            strides=strides,
            num_classes=self.num_classes,
        )
        self.contrast = MODELS.build(dict(defaults, **(contrast or {})))

    def loss(self, x: Tuple[Tensor], batch_data_samples: SampleList) -> Dict[str, Tensor]:
        """Compute the detection losses and the contrastive loss of each level.

        Args:
            x (tuple[Tensor]): Features (B, C, H_l, W_l) of each level; the N originals first,
                then the views.
            batch_data_samples (list[DetDataSample]): B samples as laid out by
                ``ContrastiveDataPreprocessor``: views of all or of some images, canvases of the
                views' objects, or, with ``contrast.key_source='image'``, neither.

        Returns:
            dict[str, Tensor]: The head's losses and ``loss_contrast_p3`` ….

        Raises:
            RuntimeError: If the pipeline makes no views though the contrastive loss needs them,
                or makes some though ``contrast.key_source='image'`` needs none, or if the batch
                holds canvases though the detection losses are to see both views.
        """
        number = sum(not s.metainfo.get('view', 0) for s in batch_data_samples)
        # a batch without objects needs no canvas
        canvas = any('canvas_left_out' in s.metainfo for s in batch_data_samples)
        if canvas and self.train_views == 'both':
            raise RuntimeError(
                f"{type(self).__name__} got train_views='both' and views whose objects are packed "
                "on canvases, which are no images to detect in: set train_views='originals', or "
                'remove model.data_preprocessor.canvas.'
            )
        # PackContrastiveInputs says so even where, with ContrastiveView(prob), a batch has none
        may_have_view = canvas or any('view' in s.metainfo for s in batch_data_samples)
        if may_have_view and self.contrast.key_source == 'image':
            raise RuntimeError(
                f"{type(self).__name__} got contrast.key_source='image' and second views, which "
                'nothing would be compared with: remove ContrastiveView from the train_pipeline '
                'and put PackDetInputs in place of PackContrastiveInputs, or set '
                "contrast.key_source='view' (or 'view_or_image' where only some have a view)."
            )
        wants_view = (
            self.contrast.key_source != 'image' and self.contrast.criterion.loss_weight != 0
        )
        if wants_view and not may_have_view:
            raise RuntimeError(
                f'{type(self).__name__} got {number} images and no second view: put '
                'ContrastiveView and PackContrastiveInputs at the end of the train_pipeline and '
                "set model.data_preprocessor.type='ContrastiveDataPreprocessor' (or set "
                "bbox_head.contrast.key_source='image' and box_jitter=0.1 to do without a view, or "
                'bbox_head.contrast.criterion.loss_weight=0 to train without the contrastive loss).'
            )
        detected: Sequence[Tensor] = x
        samples: List = batch_data_samples
        if self.train_views == 'originals' and number < len(batch_data_samples):
            detected = tuple(level[:number] for level in x)
            samples = batch_data_samples[:number]
        losses = super().loss(detected, samples)
        factor = self.contrast_factor(len(samples))
        contrast = self.contrast(x, batch_data_samples)
        losses.update({name: loss * factor for name, loss in contrast.items()})
        return losses

    def contrast_factor(self, num_images: int) -> float:
        """Return what the contrastive losses are multiplied by, to keep step with the head's own.

        Args:
            num_images (int): Images that the detection losses see, in this process.

        Returns:
            float: 1; heads override it whose losses grow with the batch.
        """
        return 1.0
