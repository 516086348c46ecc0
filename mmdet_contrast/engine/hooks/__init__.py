"""Hooks."""

from .bias_warmup_hook import BiasWarmupHook
from .view_epoch_hook import ViewEpochHook

__all__ = ['BiasWarmupHook', 'ViewEpochHook']
