"""Hooks."""

from .distillation_hook import DistillationHook
from .freeze_backbone_hook import FreezeBackboneHook
from .knn_monitor_hook import KNNMonitorHook
from .lr_override_hooks import BiasWarmupHook, ConstantLRHook
from .run_check_hook import RunCheckHook

__all__ = [
    'BiasWarmupHook',
    'ConstantLRHook',
    'DistillationHook',
    'FreezeBackboneHook',
    'KNNMonitorHook',
    'RunCheckHook',
]
