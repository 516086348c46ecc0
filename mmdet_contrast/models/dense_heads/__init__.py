"""Dense heads."""

from .contrastive_atss_head import ContrastiveATSSHead
from .contrastive_fcos_head import ContrastiveFCOSHead
from .contrastive_gfl_head import ContrastiveGFLHead
from .contrastive_retina_head import ContrastiveRetinaHead
from .contrastive_yolov8_head import ContrastiveYOLOv8Head
from .region_contrast_mixin import RegionContrastMixin
from .yolov8_head import YOLOv8Head
from .yolov8_head_module import YOLOv8HeadModule

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
