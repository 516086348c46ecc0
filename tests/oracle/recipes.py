"""Inputs of the comparison with Ultralytics, made from names and sizes alone."""

from typing import Dict, List, NamedTuple, Tuple

import numpy as np
from weights import random_state

NUM_CLASSES = 80
REG_MAX = 16
STRIDES = (8, 16, 32)
ARCHS = ('n', 's')

# (batch, height, width) of the images that go through whole models. One is not square.
FORWARD_SIZES = ((1, 640, 640), (2, 320, 448))
TINY_SIZE = (1, 64, 64)
MODEL_LOSS_SIZE = (2, 128, 160)
NMS_SIZE = (2, 320, 448)
LOSS_SIZE = (3, 256, 288)

# Boxes per image of each batch of the loss, and the range of their sides in pixels.
LOSS_CASES: Dict[str, Tuple[Tuple[int, ...], Tuple[float, float]]] = {
    'normal': ((5, 1, 12), (12, 120)),
    'some_empty': ((4, 0, 7), (12, 120)),
    'one_image_only': ((0, 9, 0), (12, 120)),
    'all_empty': ((0, 0, 0), (12, 120)),
    'hundred': ((100, 100, 100), (6, 80)),
    'crowd': ((320, 3, 0), (6, 60)),
    'tiny': ((10, 6, 20), (1, 12)),
}
LAYERS = {  # layer of Ultralytics' model → where its output is found in ours
    4: ('backbone', 0),
    6: ('backbone', 1),
    9: ('backbone', 2),
    15: ('neck', 0),
    18: ('neck', 1),
    21: ('neck', 2),
}
SAMPLES = 300
BUFFERS = (
    'model.0.bn.running_mean',
    'model.9.cv2.bn.running_var',
    'model.22.cv2.1.0.bn.running_var',
)
GRADIENTS = (
    'model.0.conv.weight',
    'model.4.cv1.conv.weight',
    'model.9.cv2.bn.weight',
    'model.15.cv2.conv.weight',
    'model.22.cv2.0.2.weight',
    'model.22.cv2.2.2.bias',
    'model.22.cv3.0.2.bias',
    'model.22.cv3.2.2.weight',
)


class Targets(NamedTuple):
    """Objects of one image: boxes (n, 4) float32 as x1 y1 x2 y2 in pixels, labels (n,) int64."""

    boxes: np.ndarray
    labels: np.ndarray


def images(size: Tuple[int, int, int]) -> np.ndarray:
    """Make a batch (N, 3, H, W) float32 in [0, 1]: noise on a slow wave."""
    n, height, width = size
    rng = random_state(f'images {size}')
    y, x = np.mgrid[:height, :width]
    wave = np.sin(y / 23.0 + np.arange(3)[:, None, None]) * np.cos(x / 31.0)
    noise = rng.uniform(0, 1, (n, 3, height, width))
    return (0.6 * noise + 0.2 * (wave + 1)).astype(np.float32)


def targets(
    name: str, size: Tuple[int, int, int], counts: Tuple[int, ...], sides: Tuple[float, float]
) -> List[Targets]:
    """Make the objects of a batch; sides are log-uniform, boxes lie within the image."""
    _, height, width = size
    rng = random_state(f'targets {name}')
    result = []
    for count in counts:
        wh = np.exp(rng.uniform(np.log(sides[0]), np.log(sides[1]), (count, 2)))
        corner = rng.uniform(0, 1, (count, 2)) * (np.array([width, height]) - wh)
        boxes = np.concatenate([corner, corner + wh], axis=1).astype(np.float32)
        result.append(Targets(boxes, rng.randint(0, NUM_CLASSES, count)))
    return result


def raw_maps(
    name: str, size: Tuple[int, int, int], objects: List[Targets], background: float = -4.0
) -> Tuple[List[np.ndarray], List[np.ndarray]]:
    """Make what a half-trained head could say: noise, and around objects something near the truth.

    Returns:
        tuple[list, list]: Per level, box distributions (N, 64, H, W), the side first and the bin
        second, and class logits (N, 80, H, W); float32.
    """
    n, height, width = size
    rng = random_state(f'maps {name}')
    regs, clss = [], []
    for stride in STRIDES:
        h, w = height // stride, width // stride
        distance = rng.uniform(0, REG_MAX - 1, (n, 4, h, w))
        logits = rng.normal(background, 1, (n, NUM_CLASSES, h, w))
        y, x = ((np.mgrid[:h, :w] + 0.5) * stride).tolist()
        y, x = np.array(y), np.array(x)
        for image, (boxes, labels) in enumerate(objects):
            for (x1, y1, x2, y2), label in zip(boxes.astype(np.float64), labels):
                true = np.stack([x - x1, y - y1, x2 - x, y2 - y]) / stride
                near = (true.min(0) > -0.5) & (rng.uniform(0, 1, (h, w)) < 0.8)
                near &= true.max(0) < REG_MAX - 1
                noisy = true + rng.normal(0, 0.25, true.shape)
                distance[image][:, near] = noisy[:, near].clip(0, REG_MAX - 1.01)
                logits[image, label][near] += rng.uniform(2, 8, (h, w))[near]
        bins = np.arange(REG_MAX)[:, None, None]
        reg = -((bins - distance[:, :, None]) ** 2) + rng.normal(0, 0.3, (n, 4, REG_MAX, h, w))
        regs.append(reg.reshape(n, 4 * REG_MAX, h, w).astype(np.float32))
        clss.append(logits.astype(np.float32))
    return regs, clss


def sample(name: str, values: np.ndarray, count: int = SAMPLES) -> np.ndarray:
    """Pick values of an array, all of them if there are at most ``count``."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.size <= count:
        return flat
    return flat[random_state(f'sample {name}').randint(0, flat.size, count)]


def summarise(name: str, values: np.ndarray, count: int = SAMPLES) -> np.ndarray:
    """Give mean and mean absolute value (of all values), then the values that :func:`sample` picks.

    The two means see values that are not picked; they are summed in float64.
    """
    wide = np.asarray(values, dtype=np.float64)
    head = [wide.mean(), np.abs(wide).mean()]
    return np.concatenate([head, sample(name, values, count)]).astype(np.float32)


def largest(values: np.ndarray, count: int = 60) -> np.ndarray:
    """Give the flat indices of the values that are largest without regard to their sign."""
    order = np.argsort(-np.abs(np.asarray(values, dtype=np.float64).reshape(-1)), kind='stable')
    return order[:count]
