"""Detectors."""

from .yolov8_detector import YOLOv8Detector

__all__ = ['YOLOv8Detector']
