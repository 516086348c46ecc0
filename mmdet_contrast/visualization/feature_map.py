"""Feature maps of a detector as pictures, and any map of numbers laid over a picture."""

import os.path as osp
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.visualization import Visualizer
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_contrast.utils.model import ModuleCapture, map_size
from mmdet_contrast.utils.picture_extent import picture_extent

from .canvas import draw_text, enlarge, grid, save_picture
from .detector_input import SavedPicture, read_images

_NUMBERS = 16


def align_to_image(
    maps: Tensor, sample: DetDataSample, shape: Tuple[int, int], mode: str = 'bilinear'
) -> Tensor:
    """Bring feature maps onto the image they come from: padding off, resizing undone.

    Cell (i, j) of a map stands for an equal share of the padded input; test pipelines of
    MMDetection pad right and below.

    Args:
        maps (Tensor): (K, h, w) feature maps of the padded input.
        sample (DetDataSample): As the test pipeline and the data preprocessor give it; says what of
            the input is picture.
        shape (tuple[int, int]): Height and width of the picture of the image.
        mode (str): 'bilinear', or 'nearest' to show the cells. Defaults to 'bilinear'.

    Returns:
        Tensor: (K, H, W) float32 on the CPU.

    Raises:
        ValueError: If a value is not finite.
    """
    maps = maps.detach().float().cpu()
    if not bool(torch.isfinite(maps).all()):
        raise ValueError('the map holds values that are not finite: the weights are broken.')
    padded = tuple(sample.metainfo.get('batch_input_shape', sample.img_shape)[:2])
    height, width = picture_extent(sample)
    whole = F.interpolate(maps[None], size=padded, mode=mode)[..., :height, :width]
    return F.interpolate(whole, size=tuple(shape), mode=mode)[0]


def paint_heat(heat: Tensor, picture: Optional[np.ndarray] = None) -> np.ndarray:
    """Paint a map in colours, blue (its least value) to red (its greatest), on a picture or alone.

    The painting is that of MMEngine's ``Visualizer.draw_featmap``.

    Args:
        heat (Tensor): (H, W).
        picture (ndarray, optional): (H, W, 3) uint8 RGB; half of it is seen.

    Returns:
        ndarray: (H, W, 3) uint8 RGB.
    """
    return Visualizer.draw_featmap(heat[None], picture, channel_reduction='squeeze_mean', alpha=0.5)


def add_colour_bar(picture: np.ndarray, low: float, high: float) -> np.ndarray:
    """Put the scale of :func:`paint_heat` at the right of a picture.

    Args:
        picture (ndarray): (H, W, 3) uint8 RGB.
        low (float): Value of the lowest colour.
        high (float): Value of the highest colour.

    Returns:
        ndarray: (H, W', 3) uint8 RGB.
    """
    height = len(picture)
    bar = np.full((height, 124, 3), 255, np.uint8)
    bar[:, 8:24] = paint_heat(torch.linspace(1, 0, height)[:, None].repeat(1, 16))
    draw_text(bar, 28, 0, f'{high:.3g}', (0, 0, 0), _NUMBERS)
    draw_text(bar, 28, max(height - 20, 0), f'{low:.3g}', (0, 0, 0), _NUMBERS)
    return np.hstack([picture, bar])


def strongest_channels(features: Tensor, num: int) -> List[int]:
    """Find the channels with the greatest mean of absolute values.

    MMEngine's ``draw_featmap`` takes the greatest sums, which leaves out every channel that
    answers with negative numbers.

    Args:
        features (Tensor): (C, h, w).
        num (int): How many; all of them where there are fewer.

    Returns:
        list[int]: Channels, the strongest first.
    """
    strength = features.float().abs().mean((1, 2))
    return strength.argsort(descending=True, stable=True)[:num].tolist()


def draw_feature_map(
    features: Tensor,
    picture: np.ndarray,
    sample: DetDataSample,
    topk: Optional[int] = None,
    channels: Optional[Sequence[int]] = None,
    overlay: bool = True,
) -> np.ndarray:
    """Draw one feature map beside its image: the mean over its channels, or some of them.

    Every map has colours of its own range, which is written beside it.

    Args:
        features (Tensor): (C, h, w).
        picture (ndarray): (H, W, 3) uint8 RGB, the image in its own size.
        sample (DetDataSample): As the test pipeline gives it; says what is padding.
        topk (int, optional): Draw this many of the strongest channels, see
            :func:`strongest_channels`.
        channels (Sequence[int], optional): Else draw these channels. With neither, the mean over
            all channels is drawn.
        overlay (bool): On the picture, smoothed; or alone, with its cells visible. Defaults to
            True.

    Returns:
        ndarray: (H', W', 3) uint8 RGB.

    Raises:
        ValueError: If a value is not finite.

    Example:
        >>> drawn = draw_feature_map(features[0], picture, sample, topk=8)
    """
    chosen = channels if topk is None else strongest_channels(features, topk)
    picture, _ = enlarge(picture)
    if chosen is None:
        maps, titles = features.float().mean(0, keepdim=True), [f'mean of {len(features)} channels']
    else:
        maps, titles = features[list(chosen)], [f'channel {channel}' for channel in chosen]
    height, width = picture_extent(sample)
    panels, titles = [picture], [f'image, {width} x {height}', *titles]
    # One at a time: 256 channels in the size of a picture, as numbers, are gigabytes.
    for values in maps:
        mode = 'bilinear' if overlay else 'nearest'
        heat = align_to_image(values[None], sample, picture.shape[:2], mode)[0]
        painted = paint_heat(heat, picture if overlay else None)
        panels.append(add_colour_bar(painted, float(heat.min()), float(heat.max())))
    return grid(panels, titles, columns=4)


def save_feature_maps(
    detector: nn.Module,
    inputs: str,
    out_dir: str,
    modules: Sequence[str] = ('neck',),
    level: Optional[int] = None,
    **options: Any,
) -> Iterator[SavedPicture]:
    """Draw feature maps of an image or a folder of images, a picture for each map.

    The forward pass is that of a test, so the modules of backbone, neck and head are all called.

    Args:
        detector (nn.Module): As :func:`load_detector` returns it.
        inputs (str): An image, or a folder of images.
        out_dir (str): Folder for the pictures, made if absent.
        modules (Sequence[str]): Dotted paths, e.g. ``backbone.layer2``. Defaults to ('neck',).
        level (int, optional): Which map of a module that gives several. Defaults to all of them.
        **options (Any): ``topk``, ``channels`` and ``overlay`` of :func:`draw_feature_map`.

    Yields:
        SavedPicture: What became of each picture.

    Raises:
        ValueError: If a module or a level does not exist, or a module gives maps of regions instead
            of the image.
        FileNotFoundError: If ``inputs`` does not exist or holds no image.

    Example:
        >>> detector = load_detector('configs/contrast/retina_shapes.py', 'epoch_15.pth')
        >>> for saved in save_feature_maps(detector, 'data/shapes/test', 'maps', ['backbone']):
        ...     print(saved.out_file)
    """
    for entry in read_images(detector, inputs):
        if isinstance(entry, SavedPicture):
            yield entry
            continue
        with ModuleCapture(detector, modules) as capture, torch.no_grad():
            detector.predict(entry.inputs, [entry.sample])
        for place in capture.chosen(level, one_image=True):
            captured = capture.maps[place]
            drawn = draw_feature_map(captured.features[0], entry.picture, entry.sample, **options)
            name = f'{osp.basename(entry.path)}.{captured.name}.{captured.level}.png'
            out_file = osp.join(out_dir, name)
            save_picture(drawn, out_file)
            note = f'{captured.name}, level {captured.level}, {map_size(captured.features)}'
            yield SavedPicture(entry.path, out_file, note)
