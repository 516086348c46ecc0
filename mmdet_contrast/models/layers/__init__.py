"""Building blocks of the models."""

from .c2f import C2f
from .sppf import SPPF
from .yolov8_scale import YOLOV8_SCALES, YOLOv8Scale

__all__ = ['C2f', 'SPPF', 'YOLOV8_SCALES', 'YOLOv8Scale']
