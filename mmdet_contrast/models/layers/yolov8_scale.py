"""Depth and width of the YOLOv8 sizes."""

from math import ceil
from typing import NamedTuple


class YOLOv8Scale(NamedTuple):
    """Factors that make one size of YOLOv8."""

    deepen_factor: float
    """Of the number of bottlenecks."""
    widen_factor: float
    """Of the channels."""
    last_stage_out_channels: int
    """Channels of the last stage before they are widened."""


YOLOV8_SCALES = dict(
    n=YOLOv8Scale(0.33, 0.25, 1024),
    s=YOLOv8Scale(0.33, 0.5, 1024),
    m=YOLOv8Scale(0.67, 0.75, 768),
    l=YOLOv8Scale(1.0, 1.0, 512),
    x=YOLOv8Scale(1.0, 1.25, 512),
)
"""The five published sizes; parameters with 80 classes: 3.2, 11.2, 25.9, 43.7, 68.2 million."""


def scale_channels(channels: int, widen_factor: float) -> int:
    """Return widened channels, rounded up to a multiple of 8.

    Args:
        channels (int): Channels at width 1.
        widen_factor (float): Their factor, above 0.

    Returns:
        int: Channels.
    """
    return 8 * ceil(channels * widen_factor / 8)


def scale_depth(blocks: int, deepen_factor: float) -> int:
    """Return the number of blocks at a depth, at least 1.

    Args:
        blocks (int): Number at depth 1.
        deepen_factor (float): Its factor, above 0.

    Returns:
        int: Number of blocks.
    """
    return max(round(blocks * deepen_factor), 1)


def check_factors(name: str, deepen_factor: float, widen_factor: float) -> None:
    """Refuse factors that no network can have.

    Args:
        name (str): Of the module, for the message.
        deepen_factor (float): Factor of the depth.
        widen_factor (float): Factor of the width.

    Raises:
        ValueError: If one is not above 0.
    """
    if not (deepen_factor > 0 and widen_factor > 0):
        sizes = ', '.join(f'{k}: {v[0]}, {v[1]}' for k, v in YOLOV8_SCALES.items())
        raise ValueError(
            f'{name} got deepen_factor={deepen_factor} and widen_factor={widen_factor}, both '
            f'expected above 0; the published sizes have ({sizes}).'
        )
