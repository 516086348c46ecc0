"""What distillation is made of: sources, adapters, the teacher, classes by name, weights."""

from .class_map import map_classes
from .distiller import Distiller, build_distiller, probe
from .feature_adapter import FeatureAdapter
from .pseudo_labels import PseudoLabels
from .source import Source, SourceRecorder
from .teacher import Teacher
from .weight_transfer import TransferReport, transfer_weights

__all__ = [
    'Distiller',
    'FeatureAdapter',
    'PseudoLabels',
    'Source',
    'SourceRecorder',
    'Teacher',
    'TransferReport',
    'build_distiller',
    'map_classes',
    'probe',
    'transfer_weights',
]
