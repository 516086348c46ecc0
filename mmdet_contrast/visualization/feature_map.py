"""Pictures of what the modules of a detector give."""

import os.path as osp
from typing import Iterator, List, NamedTuple, Optional, Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_contrast.utils.picture_extent import picture_extent
from mmdet_contrast.visualization.canvas import enlarge, grid, save_picture, stack_panels
from mmdet_contrast.visualization.detector_input import (
    SavedPicture,
    list_images,
    picture_stems,
    read_images,
)
from mmdet_contrast.visualization.heat_map import add_colour_bar, align_to_image, paint_heat
from mmdet_contrast.visualization.module_capture import CapturedMap, ModuleCapture, map_size


class FeatureMapStyle(NamedTuple):
    """How feature maps are drawn.

    Attributes:
        topk (int, optional): Draw this many of the strongest channels, see
            :func:`strongest_channels`.
        channels (Sequence[int], optional): Draw these channels. With neither, the mean over all
            channels is drawn.
        overlay (bool): On the picture, smoothed; or alone, with its cells visible.
        columns (int): Channels per row.
        min_side (int): Smaller pictures are enlarged by a whole factor until their longer side
            reaches this many pixels.
        alpha (float): Share of the map in the picture, in [0, 1].
    """

    topk: Optional[int] = None
    channels: Optional[Sequence[int]] = None
    overlay: bool = True
    columns: int = 4
    min_side: int = 480
    alpha: float = 0.5


def strongest_channels(features: Tensor, num: int) -> List[int]:
    """Find the channels with the greatest mean of absolute values.

    MMEngine's ``draw_featmap`` takes the greatest sums, which leaves out every channel that
    answers with negative numbers.

    Args:
        features (Tensor): (C, h, w).
        num (int): How many, at least 1; all of them where there are fewer.

    Returns:
        list[int]: Channels, the strongest first.

    Raises:
        ValueError: If ``num`` is less than 1.
    """
    if num < 1:
        raise ValueError(f'topk is {num}, but must be at least 1: the number of channels to draw.')
    strength = features.float().abs().mean((1, 2))
    return strength.argsort(descending=True, stable=True)[:num].tolist()


def draw_feature_map(
    features: Tensor,
    picture: np.ndarray,
    sample: DetDataSample,
    style: Optional[FeatureMapStyle] = None,
) -> np.ndarray:
    """Draw one feature map beside its image: the mean over its channels, or some of them.

    Every map has colours of its own range, which is written beside it.

    Args:
        features (Tensor): (C, h, w).
        picture (ndarray): (H, W, 3) uint8 RGB, the image in its own size.
        sample (DetDataSample): As the test pipeline gives it; says what is padding.
        style (FeatureMapStyle, optional): Defaults to the mean, on the picture.

    Returns:
        ndarray: (H', W', 3) uint8 RGB.

    Raises:
        ValueError: If the style asks for what is not there, or a value is not finite.

    Example:
        >>> style = FeatureMapStyle(topk=8)
        >>> drawn = draw_feature_map(features[0], picture, sample, style)
    """
    style = style or FeatureMapStyle()
    chosen = _choose(features, style)
    picture, _ = enlarge(picture, style.min_side)
    if chosen is None:
        maps, titles = features.float().mean(0, keepdim=True), [f'mean of {len(features)} channels']
    else:
        maps, titles = features[chosen], [f'channel {channel}' for channel in chosen]
    mode = 'bilinear' if style.overlay else 'nearest'
    height, width = picture_extent(sample)
    panels = [stack_panels([picture], [f'image, {width} x {height}'])]
    # One at a time: 256 channels in the size of a picture are gigabytes.
    for values, title in zip(maps, titles):
        heat = align_to_image(values[None], sample, picture.shape[:2], mode)[0]
        painted = paint_heat(heat, picture if style.overlay else None, style.alpha)
        painted = add_colour_bar(painted, float(heat.min()), float(heat.max()))
        panels.append(stack_panels([painted], [title]))
    return grid(panels, style.columns)


def save_feature_maps(
    detector: nn.Module,
    inputs: str,
    out_dir: str,
    modules: Sequence[str] = ('neck',),
    level: Optional[int] = None,
    style: Optional[FeatureMapStyle] = None,
) -> Iterator[SavedPicture]:
    """Draw feature maps of an image or a folder of images, a picture for each map.

    The forward pass is that of a test, so the modules of backbone, neck and head are all called.

    Args:
        detector (nn.Module): As :func:`load_detector` returns it.
        inputs (str): An image, or a folder of images.
        out_dir (str): Folder for the pictures, made if absent.
        modules (Sequence[str]): Dotted paths, e.g. ``backbone.layer2``. Defaults to ('neck',).
        level (int, optional): Which map of a module that gives several. Defaults to all of them.
        style (FeatureMapStyle, optional): Defaults to the mean over the channels, on the picture.

    Yields:
        SavedPicture: What became of each picture.

    Raises:
        ValueError: If a module, a level or a channel does not exist, a module gives maps of
            regions instead of the image, or the style is impossible.
        FileNotFoundError: If ``inputs`` does not exist or holds no image.

    Example:
        >>> detector = load_detector('configs/retina_shapes.py', 'epoch_15.pth')
        >>> for saved in save_feature_maps(detector, 'data/shapes/test', 'maps', ['backbone']):
        ...     print(saved.out_file)
    """
    style = style or FeatureMapStyle()
    paths = list_images(inputs)
    for stem, entry in zip(picture_stems(paths), read_images(detector, paths)):
        if isinstance(entry, SavedPicture):
            yield entry
            continue
        with ModuleCapture(detector, modules) as capture, torch.no_grad():
            detector.predict(entry.inputs, [entry.sample])
        for place in capture.chosen(level, one_image=True):
            captured = capture.maps[place]
            drawn = draw_feature_map(captured.features[0], entry.picture, entry.sample, style)
            out_file = osp.join(out_dir, f'{stem}.{captured.name}.{captured.level}.png')
            save_picture(drawn, out_file)
            yield SavedPicture(entry.path, out_file, _note(captured))


def _choose(features: Tensor, style: FeatureMapStyle) -> Optional[List[int]]:
    """Say which channels a style draws; None is their mean."""
    if style.topk is not None and style.channels is not None:
        raise ValueError('both topk and channels are given: give one of them.')
    if style.columns < 1:
        raise ValueError(f'columns is {style.columns}, but must be at least 1.')
    if style.topk is not None:
        return strongest_channels(features, style.topk)
    if style.channels is None:
        return None
    wrong = [channel for channel in style.channels if not 0 <= channel < len(features)]
    if wrong or not style.channels:
        raise ValueError(
            f'channels are {list(style.channels)}, but the feature map has the channels 0 to '
            f'{len(features) - 1}.'
        )
    return list(style.channels)


def _note(captured: CapturedMap) -> str:
    """Name a map and its size."""
    return f'{captured.name}, level {captured.level}, {map_size(captured.features)}'
