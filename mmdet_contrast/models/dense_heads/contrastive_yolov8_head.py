"""YOLOv8Head with the region-contrastive loss."""

from mmdet.registry import MODELS

from .region_contrast_mixin import RegionContrastMixin
from .yolov8_head import YOLOv8Head


@MODELS.register_module()
class ContrastiveYOLOv8Head(RegionContrastMixin, YOLOv8Head):
    """``YOLOv8Head`` with :class:`RegionContrast` beside its own losses.

    The levels of YOLOv8 have different numbers of channels, so each has a projector of its own.
    With ``scale_by_batch`` the contrastive losses are multiplied by the number of images, too:
    their share in the whole does not depend on the batch and the processes.

    Args:
        *args: As in ``YOLOv8Head``.
        contrast (dict, optional): Config of ``RegionContrast``.
        **kwargs: As in ``YOLOv8Head``.
    """

    def contrast_factor(self, num_images: int) -> float:
        """Return the factor of the head's own losses; see the base class."""
        return self.batch_factor(num_images)
