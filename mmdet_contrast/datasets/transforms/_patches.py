"""Patches of an image: enlarging, fitting into a box, pasting, and measuring what covers one."""

from typing import Tuple

import cv2
import numpy as np

# cv2.resize knows no other depths; everything else takes the way through float64.
_CV2_DTYPES = ('uint8', 'uint16', 'int16', 'float32', 'float64')


def whole_pixels(boxes: np.ndarray, shape: Tuple[int, int]) -> np.ndarray:
    """Round boxes to whole pixels and clip them to the image.

    Args:
        boxes (ndarray): (M, 4) float, (x1, y1, x2, y2) in pixels.
        shape (tuple[int, int]): Height and width of the image.

    Returns:
        ndarray: (M, 4) int; boxes upside down, or with a coordinate that is not finite, get an
        area of zero.
    """
    limits = np.array([shape[1], shape[0], shape[1], shape[0]])
    # empty boxes are marked like every box without pixels
    boxes = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0)
    pixels = np.clip(np.rint(boxes), 0, limits).astype(int)
    pixels[:, 2:] = np.maximum(pixels[:, 2:], pixels[:, :2])
    return pixels


def resize_patch(patch: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize a patch of any dtype: area average where it shrinks, bilinear where it grows.

    Args:
        patch (ndarray): (H, W) or (H, W, C).
        width (int): New width in pixels.
        height (int): New height in pixels.

    Returns:
        ndarray: (height, width) or (height, width, C), dtype of ``patch``, values in its range.
    """
    dtype, channels = patch.dtype, patch.shape[2:]
    out = patch if dtype.name in _CV2_DTYPES else patch.astype(np.float64)
    # side by side, because bilinear sampling of a much larger side skips most of its pixels
    small = min(width, patch.shape[1]), min(height, patch.shape[0])
    if small != (patch.shape[1], patch.shape[0]):
        # the weights of cv2's average add up to 1 but for rounding
        out = np.clip(_shrink(out, small), patch.min(), patch.max())
    if small != (width, height):
        out = cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR)
    if out.dtype != dtype:
        out = (out if np.issubdtype(dtype, np.floating) else np.rint(out)).astype(dtype)
    return out.reshape(height, width, *channels)


def _shrink(patch: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    # cv2's area average takes four channels at most, its other ways any number
    if patch.ndim == 3 and patch.shape[2] > 4:
        return np.stack([_shrink(channel, size) for channel in np.moveaxis(patch, 2, 0)], axis=2)
    return cv2.resize(patch, size, interpolation=cv2.INTER_AREA)


def zoom_centre(patch: np.ndarray, zoom: float) -> np.ndarray:
    """Enlarge the central ``1/zoom`` of a patch to the size of the patch.

    Args:
        patch (ndarray): (H, W) or (H, W, C).
        zoom (float): Factor, at least 1.

    Returns:
        ndarray: Shape and dtype of ``patch``.
    """
    height, width = patch.shape[:2]
    crop_h, crop_w = max(1, round(height / zoom)), max(1, round(width / zoom))
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    return resize_patch(patch[top : top + crop_h, left : left + crop_w], width, height)


def fit_patch(patch: np.ndarray, width: int, height: int, keep_aspect: bool) -> np.ndarray:
    """Resize a patch to a size whose aspect ratio may differ.

    Args:
        patch (ndarray): (H, W) or (H, W, C).
        width (int): New width in pixels.
        height (int): New height in pixels.
        keep_aspect (bool): Cut the largest central part that has the new aspect ratio, instead of
            stretching the whole patch.

    Returns:
        ndarray: (height, width) or (height, width, C), dtype of ``patch``.
    """
    if keep_aspect:
        full_h, full_w = patch.shape[:2]
        crop_h = min(full_h, max(1, round(full_w * height / width)))
        crop_w = min(full_w, max(1, round(full_h * width / height)))
        top, left = (full_h - crop_h) // 2, (full_w - crop_w) // 2
        patch = patch[top : top + crop_h, left : left + crop_w]
    return resize_patch(patch, width, height).clip(patch.min(), patch.max())


def paste_patch(target: np.ndarray, patch: np.ndarray, soft_edges: float = 0.0) -> None:
    """Paste a patch in place, fading linearly into what lies beneath along its border.

    The weight of the patch rises by equal steps from the border inwards and is 1 from the width of
    the edge on; in the corners it is the smaller one of both directions.

    Args:
        target (ndarray): Region of the image, changed in place; shape and dtype of ``patch``.
        patch (ndarray): (H, W) or (H, W, C).
        soft_edges (float): Width of the edge: below 1 a share of each side (at most 0.5), from 1 on
            pixels (at most half of the side). 0 pastes with hard edges.
    """
    height, width = patch.shape[:2]
    rows, columns = (_edge_width(side, soft_edges) for side in (height, width))
    if not (rows or columns):
        target[:] = patch
        return
    weights = np.minimum.outer(_ramp(height, rows), _ramp(width, columns))
    inner = slice(rows, height - rows)
    strips = (
        (slice(0, rows), slice(None)),
        (slice(height - rows, height), slice(None)),
        (inner, slice(0, columns)),
        (inner, slice(width - columns, width)),
    )
    for strip in strips:
        target[strip] = _blend(target[strip], patch[strip], weights[strip])
    core = inner, slice(columns, width - columns)
    target[core] = patch[core]


def _edge_width(side: int, soft_edges: float) -> int:
    wanted = soft_edges * side if soft_edges < 1 else soft_edges
    return min(int(round(wanted)), side // 2)


def _ramp(side: int, edge: int) -> np.ndarray:
    """Weights along a side: 1 but for ``edge`` pixels at either end."""
    nearest = np.minimum(np.arange(side), np.arange(side)[::-1])
    return np.clip((nearest + 0.5) / edge, 0, 1) if edge else np.ones(side)


def _blend(under: np.ndarray, over: np.ndarray, weights: np.ndarray) -> np.ndarray:
    dtype = under.dtype
    # float32 holds 8 and 16 bits exactly
    work = np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64
    low, high = under.astype(work), over.astype(work)
    weights = weights.astype(work).reshape(weights.shape + (1,) * (under.ndim - 2))
    # rounding may leave the range of both by one unit in the last place
    out = np.clip(low + (high - low) * weights, np.minimum(low, high), np.maximum(low, high))
    return (out if np.issubdtype(dtype, np.floating) else np.rint(out)).astype(dtype)


def covered_share(box: np.ndarray, others: np.ndarray) -> float:
    """Share of the pixels of a box that the union of other boxes covers.

    Args:
        box (ndarray): (4,) int, (x1, y1, x2, y2) in whole pixels, with an area.
        others (ndarray): (K, 4) int.

    Returns:
        float: Share in [0, 1].
    """
    x1, y1, x2, y2 = box
    clipped = np.clip(others, [x1, y1, x1, y1], [x2, y2, x2, y2]) - [x1, y1, x1, y1]
    clipped = clipped[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)]
    if len(clipped) == 0:
        return 0.0
    covered = np.zeros((y2 - y1, x2 - x1), dtype=bool)
    for left, top, right, bottom in clipped:
        covered[top:bottom, left:right] = True
    return float(covered.mean())
