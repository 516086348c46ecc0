"""Region-level contrastive learning on feature pyramids."""

from .background import sample_background_boxes
from .mlp_projector import MLPProjector
from .region_contrast import RegionContrast

__all__ = ['MLPProjector', 'RegionContrast', 'sample_background_boxes']
