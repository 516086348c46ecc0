"""What the programs in ``tools/`` call and users import."""

from .compare import Comparison, Statistic, compare
from .runs import RunResult

__all__ = ['Comparison', 'RunResult', 'Statistic', 'compare']
