"""Converters: annotations to COCO JSON, and checkpoints of one model to those of another."""

from .coco import ConversionReport
from .keys import rename_keys
from .shards import coco_to_shards
from .subset import subset_coco
from .txt import txt_to_coco
from .ultralytics import convert_ultralytics_state_dict, map_ultralytics_state_dict
from .voc import voc_to_coco

__all__ = [
    'ConversionReport',
    'coco_to_shards',
    'convert_ultralytics_state_dict',
    'map_ultralytics_state_dict',
    'rename_keys',
    'subset_coco',
    'txt_to_coco',
    'voc_to_coco',
]
