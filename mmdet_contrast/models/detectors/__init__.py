"""Detectors."""

from .contrastive_detector import ContrastiveDetector
from .contrastive_yolov8_detector import ContrastiveYOLOv8Detector
from .distillation_detector import DistillationDetector
from .yolov8_detector import YOLOv8Detector

__all__ = [
    'ContrastiveDetector',
    'ContrastiveYOLOv8Detector',
    'DistillationDetector',
    'YOLOv8Detector',
]
