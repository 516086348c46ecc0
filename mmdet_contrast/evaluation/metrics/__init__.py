"""Metrics."""

from .base_novel_coco_metric import BaseNovelCocoMetric
from .label_accuracy import LabelAccuracy

__all__ = ['BaseNovelCocoMetric', 'LabelAccuracy']
