"""Metrics."""

from .base_novel_coco_metric import BaseNovelCocoMetric

__all__ = ['BaseNovelCocoMetric']
