"""Converters of annotations to COCO JSON."""

from .report import ConversionError, ConversionReport
from .txt import txt_to_coco
from .voc import voc_to_coco

__all__ = ['ConversionError', 'ConversionReport', 'txt_to_coco', 'voc_to_coco']
