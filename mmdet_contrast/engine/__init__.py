"""Extensions of MMEngine's runner."""

from . import hooks
from .runner import CheckedRunner

__all__ = ['CheckedRunner', 'hooks']
