"""Region-level contrastive learning on feature pyramids."""

from .background import sample_background_boxes
from .mlp_projector import MLPProjector
from .region_contrast import RegionContrast
from .region_pool import pool_regions

__all__ = ['MLPProjector', 'RegionContrast', 'pool_regions', 'sample_background_boxes']
