"""Dense heads."""

from .contrastive_heads import (
    ContrastiveATSSHead,
    ContrastiveFCOSHead,
    ContrastiveGFLHead,
    ContrastiveRetinaHead,
    ContrastiveYOLOv8Head,
    RegionContrastMixin,
)
from .yolov8_head import YOLOv8Head, YOLOv8HeadModule

__all__ = [
    'ContrastiveATSSHead',
    'ContrastiveFCOSHead',
    'ContrastiveGFLHead',
    'ContrastiveRetinaHead',
    'ContrastiveYOLOv8Head',
    'RegionContrastMixin',
    'YOLOv8Head',
    'YOLOv8HeadModule',
]
