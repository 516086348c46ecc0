"""Data preprocessors."""

from .contrastive_data_preprocessor import ContrastiveDataPreprocessor
from .view_canvas import ViewCanvas

__all__ = ['ContrastiveDataPreprocessor', 'ViewCanvas']
