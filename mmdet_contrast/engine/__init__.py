"""Extensions of MMEngine's runner."""

from . import hooks

__all__ = ['hooks']
