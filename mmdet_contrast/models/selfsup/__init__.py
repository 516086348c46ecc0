"""Pre-training of backbones without annotations."""

from .batch_norm_mlp import BatchNormMLP
from .linear_classifier import LinearClassifier
from .simclr import SimCLR
from .simsiam import SimSiam
from .two_view_model import TwoViewModel

__all__ = ['BatchNormMLP', 'LinearClassifier', 'SimCLR', 'SimSiam', 'TwoViewModel']
