"""Assigners: registered in MMDetection's registry on import."""

from .batch_task_aligned_assigner import BatchAssignment, BatchTaskAlignedAssigner

__all__ = ['BatchAssignment', 'BatchTaskAlignedAssigner']
