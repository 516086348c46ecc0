"""Building blocks of the models, and suppression of overlapping boxes."""

from .c2f import C2f
from .diou_nms import diou_nms
from .nms_registry import NMS_OPS
from .sppf import SPPF
from .weighted_nms import weighted_nms
from .yolov8_scale import YOLOV8_SCALES, YOLOv8Scale

__all__ = [
    'C2f',
    'NMS_OPS',
    'SPPF',
    'YOLOV8_SCALES',
    'YOLOv8Scale',
    'diou_nms',
    'weighted_nms',
]
