"""Data sets and transforms."""

from . import transforms
from .box_crops import BoxCrops
from .image_folder import ImageFolderDataset, LabelledImageFolder

__all__ = ['BoxCrops', 'ImageFolderDataset', 'LabelledImageFolder', 'transforms']
