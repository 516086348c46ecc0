"""Region-level contrastive learning on feature pyramids."""

from .box_samplers import JitteredBoxes, ViewBoxes
from .feature_queue import FeatureQueue
from .mlp_projector import MLPProjector
from .patch_sampler import PatchSampler
from .region_contrast import RegionContrast
from .region_pool import pool_regions

__all__ = [
    'FeatureQueue',
    'JitteredBoxes',
    'MLPProjector',
    'PatchSampler',
    'RegionContrast',
    'ViewBoxes',
    'pool_regions',
]
