"""Hooks."""

from .bias_warmup_hook import BiasWarmupHook
from .distillation_hook import DistillationHook
from .freeze_backbone_hook import FreezeBackboneHook
from .view_epoch_hook import ViewEpochHook

__all__ = ['BiasWarmupHook', 'DistillationHook', 'FreezeBackboneHook', 'ViewEpochHook']
