"""Pictures of the data, of the training and of its results."""

from .cam import METHODS as CAM_METHODS
from .cam import class_activation_map
from .cam_pictures import CamOptions, save_cams
from .cam_targets import box_target, class_target, head_outputs
from .detection_painter import DetectionPainter
from .detection_picture import draw_detections
from .detection_sheet import save_detection_pictures, save_detection_sheet
from .detector_input import load_detector
from .embedding_map import draw_embedding_map, project_embeddings, save_embedding_map
from .feature_map import (
    FeatureMapStyle,
    draw_feature_map,
    save_feature_maps,
    strongest_channels,
)
from .loss_curves import plot_losses
from .matching import DetectionMatch, match_detections
from .module_capture import ModuleCapture
from .picture_options import run_pictures
from .view_pairs import draw_view_pair, save_view_pairs

__all__ = [
    'CAM_METHODS',
    'CamOptions',
    'DetectionMatch',
    'DetectionPainter',
    'FeatureMapStyle',
    'ModuleCapture',
    'box_target',
    'class_activation_map',
    'class_target',
    'draw_detections',
    'draw_embedding_map',
    'draw_feature_map',
    'draw_view_pair',
    'head_outputs',
    'load_detector',
    'match_detections',
    'plot_losses',
    'project_embeddings',
    'run_pictures',
    'save_cams',
    'save_detection_pictures',
    'save_detection_sheet',
    'save_embedding_map',
    'save_feature_maps',
    'save_view_pairs',
    'strongest_channels',
]
