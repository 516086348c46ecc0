"""Helpers that need neither MMDetection nor torch."""

from .config import config_path

__all__ = ['config_path']
