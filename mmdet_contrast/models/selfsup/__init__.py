"""Pre-training of backbones without annotations."""

from .linear_classifier import LinearClassifier
from .two_view_models import BatchNormMLP, SimCLR, SimSiam, TwoViewModel

__all__ = ['BatchNormMLP', 'LinearClassifier', 'SimCLR', 'SimSiam', 'TwoViewModel']
