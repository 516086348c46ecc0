"""Converters of annotations to COCO JSON."""

from .report import ConversionError, ConversionReport
from .subset import subset_coco
from .txt import txt_to_coco
from .voc import voc_to_coco

__all__ = ['ConversionError', 'ConversionReport', 'subset_coco', 'txt_to_coco', 'voc_to_coco']
