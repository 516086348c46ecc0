"""What distillation is made of: sources, adapters, the teacher, classes by name, weights."""

from .class_map import highest_scores, map_classes, select_classes
from .distiller import Distiller, build_distiller, probe
from .feature_adapter import FeatureAdapter
from .model_config import model_section
from .pseudo_labels import PseudoLabels
from .source import Source, SourceRecorder
from .state_names import enter_student, leave_student
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
    'enter_student',
    'highest_scores',
    'leave_student',
    'map_classes',
    'model_section',
    'probe',
    'select_classes',
    'transfer_weights',
]
