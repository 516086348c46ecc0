"""Pictures of the data, of the training and of its results.

A training worker needs what is registered alone, so all others are imported when they are first
asked for.
"""

from importlib import import_module
from typing import Any

from .detection_painter import (
    DetectionMatch,
    DetectionPainter,
    draw_detections,
    match_detections,
)
from .visdom_backend import VisdomVisBackend

_MODULES = {
    'cam': ('box_target', 'class_activation_map', 'class_target', 'head_outputs'),
    'cam_pictures': ('save_cams',),
    'detection_sheet': ('save_detection_sheet',),
    'detector_input': ('load_detector', 'run_pictures'),
    'embedding_map': ('draw_embedding_map', 'project_embeddings', 'save_embedding_map'),
    'feature_map': ('draw_feature_map', 'save_feature_maps', 'strongest_channels'),
    'loss_curves': ('plot_losses',),
    'view_pairs': ('draw_sample', 'save_view_pairs'),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    'DetectionMatch',
    'DetectionPainter',
    'VisdomVisBackend',
    'draw_detections',
    'match_detections',
    *_HOMES,
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_HOMES[name]}', __name__), name)
