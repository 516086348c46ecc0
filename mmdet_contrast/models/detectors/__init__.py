"""Detectors."""

from .distillation_detector import DistillationDetector
from .yolov8_detector import YOLOv8Detector

__all__ = [
    'DistillationDetector',
    'YOLOv8Detector',
]
