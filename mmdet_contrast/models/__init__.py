"""Models: registered in MMDetection's registry on import."""

from . import contrast, data_preprocessors, dense_heads, losses

__all__ = ['contrast', 'data_preprocessors', 'dense_heads', 'losses']
