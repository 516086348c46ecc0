"""Data sets, their generation and conversion, and transforms."""

from . import transforms

__all__ = ['transforms']
