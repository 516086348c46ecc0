"""Helpers that need neither MMDetection nor torch."""

from .config import config_path
from .ultralytics import convert_ultralytics_state_dict, map_ultralytics_state_dict

__all__ = ['config_path', 'convert_ultralytics_state_dict', 'map_ultralytics_state_dict']
