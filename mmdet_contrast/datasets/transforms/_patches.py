"""Patches of an image: enlarging, resizing, and measuring how far others cover one."""

from typing import Tuple

import cv2
import numpy as np


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
    dtype = patch.dtype
    # cv2 resizes few dtypes; float64 holds the values of all others
    out = patch if dtype == np.uint8 else patch.astype(np.float64)
    # two steps, because bilinear sampling of a side that shrinks skips most of its pixels
    smaller = min(width, patch.shape[1]), min(height, patch.shape[0])
    out = cv2.resize(out, smaller, interpolation=cv2.INTER_AREA)
    out = cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR)
    if dtype != np.uint8:
        out = np.clip(out, patch.min(), patch.max())
        out = (out if np.issubdtype(dtype, np.floating) else np.rint(out)).astype(dtype)
    return out.reshape(height, width, *patch.shape[2:])


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


def covered_share(box: np.ndarray, others: np.ndarray) -> float:
    """Compute the share of a box's pixels that the union of other boxes covers.

    Args:
        box (ndarray): (4,) int, (x1, y1, x2, y2) in whole pixels, with an area.
        others (ndarray): (K, 4) int.

    Returns:
        float: Share in [0, 1].
    """
    x1, y1, x2, y2 = box
    covered = np.zeros((y2 - y1, x2 - x1), dtype=bool)
    for left, top, right, bottom in np.clip(others, [x1, y1, x1, y1], [x2, y2, x2, y2]):
        covered[top - y1 : bottom - y1, left - x1 : right - x1] = True
    return float(covered.mean())
