"""Pictures of the data, of the training and of its results."""

from .detection_sheet import draw_detections, save_detection_sheet
from .loss_curves import plot_losses
from .view_pairs import draw_view_pair, save_view_pairs

__all__ = [
    'draw_detections',
    'draw_view_pair',
    'plot_losses',
    'save_detection_sheet',
    'save_view_pairs',
]
