"""What distillation is made of: terms, the teacher, its detections as labels, its weights."""

from .distiller import (
    Distiller,
    FeatureAdapter,
    Source,
    build_distiller,
    highest_scores,
    record,
    select_classes,
)
from .pseudo_labels import PseudoLabels
from .teacher import Teacher, model_section
from .weight_transfer import TransferReport, map_classes, transfer_weights

__all__ = [
    'Distiller',
    'FeatureAdapter',
    'PseudoLabels',
    'Source',
    'Teacher',
    'TransferReport',
    'build_distiller',
    'highest_scores',
    'map_classes',
    'model_section',
    'record',
    'select_classes',
    'transfer_weights',
]
