"""What the programs in ``tools/`` call and users import."""

from .compare import Comparison, Statistic, compare
from .infer import InferenceReport, infer
from .runs import RunResult
from .test import test
from .train import train

__all__ = [
    'Comparison',
    'InferenceReport',
    'RunResult',
    'Statistic',
    'compare',
    'infer',
    'test',
    'train',
]
