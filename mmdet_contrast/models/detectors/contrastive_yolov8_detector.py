"""YOLOv8Detector whose views may pass without gradient."""

from mmdet.registry import MODELS

from .contrastive_detector import ContrastiveDetector
from .yolov8_detector import YOLOv8Detector


@MODELS.register_module()
class ContrastiveYOLOv8Detector(ContrastiveDetector, YOLOv8Detector):
    """``YOLOv8Detector`` with the decisions of :class:`ContrastiveDetector` about second views.

    Args:
        *args: As in ``YOLOv8Detector``.
        view_grad (bool): See ``ContrastiveDetector``.
        view_norm (str, optional): See ``ContrastiveDetector``.
        **kwargs: As in ``YOLOv8Detector``, ``scale`` among them.

    Raises:
        ValueError: As in both.

    Examples:
        >>> _base_ = './yolov8_contrast_n_shapes.py'
        >>> model = dict(type='ContrastiveYOLOv8Detector', view_grad=False)
    """
