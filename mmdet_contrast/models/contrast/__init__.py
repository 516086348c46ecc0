"""Region-level contrastive learning on feature pyramids."""

from .background import sample_background_boxes
from .feature_queue import FeatureQueue
from .mlp_projector import MLPProjector
from .patch_sampler import PatchSampler
from .region_contrast import RegionContrast
from .region_pool import pool_regions

__all__ = [
    'FeatureQueue',
    'MLPProjector',
    'PatchSampler',
    'RegionContrast',
    'pool_regions',
    'sample_background_boxes',
]
