"""What distillation is made of: sources, adapters, the teacher, classes by name, weights."""

from .class_map import map_classes
from .feature_adapter import FeatureAdapter
from .pseudo_labels import PseudoLabels
from .source import Source, SourceRecorder
from .teacher import Teacher
from .weight_transfer import TransferReport, transfer_weights

__all__ = [
    'FeatureAdapter',
    'PseudoLabels',
    'Source',
    'SourceRecorder',
    'Teacher',
    'TransferReport',
    'map_classes',
    'transfer_weights',
]
