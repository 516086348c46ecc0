"""Data sets, their generation and conversion, and transforms."""

from . import transforms
from .box_crops import BoxCrops
from .image_folder_dataset import ImageFolderDataset
from .labelled_image_folder import LabelledImageFolder

__all__ = ['BoxCrops', 'ImageFolderDataset', 'LabelledImageFolder', 'transforms']
