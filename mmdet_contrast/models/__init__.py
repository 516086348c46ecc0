"""Models: registered in MMDetection's registry on import."""

from . import (
    backbones,
    contrast,
    data_preprocessors,
    dense_heads,
    detectors,
    distill,
    layers,
    losses,
    necks,
    selfsup,
    task_modules,
)

__all__ = [
    'backbones',
    'contrast',
    'data_preprocessors',
    'dense_heads',
    'detectors',
    'distill',
    'layers',
    'losses',
    'necks',
    'selfsup',
    'task_modules',
]
