"""What distillation is made of: terms, the maps that they compare, the teacher, its weights."""

from .distiller import Distiller, Source, record
from .head_maps import (
    decode_boxes,
    join_levels,
    object_weights,
    spare_unannotated,
    without_negative_sides,
)
from .teacher import Teacher
from .weight_transfer import TransferReport, map_classes, transfer_weights

__all__ = [
    'Distiller',
    'Source',
    'Teacher',
    'TransferReport',
    'decode_boxes',
    'join_levels',
    'map_classes',
    'object_weights',
    'record',
    'spare_unannotated',
    'transfer_weights',
    'without_negative_sides',
]
