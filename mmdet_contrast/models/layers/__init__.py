"""Building blocks of the models, and suppression of overlapping boxes."""

from .nms import average_clusters, diou_nms, pairwise_diou
from .se_plugin import SEPlugin
from .yolov8 import SPPF, YOLOV8_SCALES, C2f, YOLOv8Scale

__all__ = [
    'C2f',
    'SEPlugin',
    'SPPF',
    'YOLOV8_SCALES',
    'YOLOv8Scale',
    'average_clusters',
    'diou_nms',
    'pairwise_diou',
]
