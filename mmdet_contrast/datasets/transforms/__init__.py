"""Data transforms: the contrastive view and its packing."""

from .contrastive_view import ContrastiveView
from .pack_contrastive_inputs import PackContrastiveInputs

__all__ = ['ContrastiveView', 'PackContrastiveInputs']
