"""Pictures of the data, of the training and of its results."""

from .detection_painter import DetectionPainter
from .detection_picture import draw_detections
from .detection_sheet import save_detection_pictures, save_detection_sheet
from .loss_curves import plot_losses
from .matching import DetectionMatch, match_detections
from .view_pairs import draw_view_pair, save_view_pairs

__all__ = [
    'DetectionMatch',
    'DetectionPainter',
    'draw_detections',
    'draw_view_pair',
    'match_detections',
    'plot_losses',
    'save_detection_pictures',
    'save_detection_sheet',
    'save_view_pairs',
]
