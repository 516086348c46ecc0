"""Detectors."""

from .contrastive_detector import ContrastiveDetector
from .distillation_detector import DistillationDetector
from .yolov8_detector import YOLOv8Detector

__all__ = ['ContrastiveDetector', 'DistillationDetector', 'YOLOv8Detector']
