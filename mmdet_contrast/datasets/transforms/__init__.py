"""Data transforms: the contrastive view and its packing; random views for pre-training."""

from .color_jitter import ColorJitter
from .contrastive_view import ContrastiveView, ObjectBank
from .gaussian_blur import GaussianBlur
from .load_unlabelled_image import LoadUnlabelledImage
from .pack_contrastive_inputs import PackContrastiveInputs
from .random_resized_crop import RandomResizedCrop

__all__ = [
    'ColorJitter',
    'ContrastiveView',
    'GaussianBlur',
    'LoadUnlabelledImage',
    'ObjectBank',
    'PackContrastiveInputs',
    'RandomResizedCrop',
]
