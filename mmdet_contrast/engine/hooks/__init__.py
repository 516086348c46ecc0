"""Hooks."""

from .bias_warmup_hook import BiasWarmupHook
from .constant_lr_hook import ConstantLRHook
from .distillation_hook import DistillationHook
from .freeze_backbone_hook import FreezeBackboneHook
from .knn_monitor_hook import KNNMonitorHook
from .linear_check_hook import LinearCheckHook

__all__ = [
    'BiasWarmupHook',
    'ConstantLRHook',
    'DistillationHook',
    'FreezeBackboneHook',
    'KNNMonitorHook',
    'LinearCheckHook',
]
