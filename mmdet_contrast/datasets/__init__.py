"""Data sets and transforms."""

from . import transforms
from .box_crops import BoxCrops
from .image_folder import ImageFolderDataset, LabelledImageFolder
from .shard_backend import ShardBackend
from .shard_dataset import ShardDataset
from .shard_sampler import ShardSampler

__all__ = [
    'BoxCrops',
    'ImageFolderDataset',
    'LabelledImageFolder',
    'ShardBackend',
    'ShardDataset',
    'ShardSampler',
    'transforms',
]
