"""Dense heads."""

from .contrastive_atss_head import ContrastiveATSSHead
from .contrastive_fcos_head import ContrastiveFCOSHead
from .contrastive_gfl_head import ContrastiveGFLHead
from .contrastive_retina_head import ContrastiveRetinaHead
from .region_contrast_mixin import RegionContrastMixin

__all__ = [
    'ContrastiveATSSHead',
    'ContrastiveFCOSHead',
    'ContrastiveGFLHead',
    'ContrastiveRetinaHead',
    'RegionContrastMixin',
]
