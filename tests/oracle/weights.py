"""Weights and buffers of a model, made from the names of its keys alone.

Both sides of a comparison fill their models with them, so that none has to be stored.
"""

import re
import zlib
from typing import Dict, Mapping, Sequence

import numpy as np

# Keeps the second moment of SiLU(N(0, 1)), 0.355, through a convolution.
_GAIN = 0.355**-0.5
_PREFIX = re.compile(r'^(?:module\.|model\.)*')


def random_state(name: str) -> np.random.RandomState:
    """Make the random numbers that belong to a name; NumPy keeps this generator's stream fixed."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def fill(shapes: Mapping[str, Sequence[int]]) -> Dict[str, np.ndarray]:
    """Make every array of an Ultralytics YOLOv8 state_dict from its key.

    Activations stay near unit size through the network, boxes are of all sizes, and about two of a
    hundred class scores exceed 0.001.

    Args:
        shapes (Mapping[str, Sequence[int]]): Key → shape; ``module.`` and ``model.`` at the front
            of a key make no difference.

    Returns:
        dict[str, ndarray]: Key → array, float32 except for the counts of batches (int64).
    """
    return {key: _fill_one(_PREFIX.sub('', key), tuple(shape)) for key, shape in shapes.items()}


def _fill_one(key: str, shape: tuple) -> np.ndarray:
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith('dfl.conv.weight'):
        return np.arange(16, dtype=np.float32).reshape(shape)
    rng = random_state(key)
    if key.endswith('running_var'):
        value = rng.uniform(0.6, 1.4, shape)
    elif key.endswith('bn.weight'):
        value = rng.uniform(0.8, 1.2, shape)
    elif key.endswith(('running_mean', 'bn.bias')):
        value = rng.normal(0, 0.1, shape)
    elif key.endswith('bias'):
        is_class = '.cv3.' in key
        value = rng.normal(-9 if is_class else 0, 0.5, shape)
    else:
        gain = 3 * _GAIN if re.search(r'\.cv2\.\d\.2\.weight$', key) else _GAIN
        value = rng.normal(0, gain / np.sqrt(np.prod(shape[1:])), shape)
    return value.astype(np.float32)
