"""What the programs in ``tools/`` call and users import."""

from .add_classes import add_classes
from .addition_config import add_classes_config
from .addition_result import AdditionResult
from .compare import Comparison, Statistic, compare
from .infer import InferenceReport, infer
from .runs import RunResult
from .test import test
from .train import train

__all__ = [
    'AdditionResult',
    'Comparison',
    'InferenceReport',
    'RunResult',
    'Statistic',
    'add_classes',
    'add_classes_config',
    'compare',
    'infer',
    'test',
    'train',
]
