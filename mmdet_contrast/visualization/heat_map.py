"""Maps of numbers laid over pictures."""

from typing import Optional, Tuple

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.visualization import Visualizer
from torch import Tensor
from torch.nn import functional as F

from mmdet_contrast.utils.picture_extent import picture_extent
from mmdet_contrast.visualization.canvas import draw_text, text_size

_BAR = 16
_GAP = 8


def align_to_image(
    maps: Tensor, sample: DetDataSample, shape: Tuple[int, int], mode: str = 'bilinear'
) -> Tensor:
    """Bring feature maps onto the image they come from: padding off, resizing undone.

    Cell (i, j) of a map stands for an equal share of the padded input; test pipelines of
    MMDetection pad right and below.

    Args:
        maps (Tensor): (K, h, w) feature maps of the padded input.
        sample (DetDataSample): As the test pipeline and the data preprocessor give it; what of the
            input is picture is found by :func:`~mmdet_contrast.utils.picture_extent\
.picture_extent`.
        shape (tuple[int, int]): Height and width of the picture of the image.
        mode (str): 'bilinear', or 'nearest' to show the cells. Defaults to 'bilinear'.

    Returns:
        Tensor: (K, H, W) float32 on the CPU.

    Raises:
        ValueError: If a value is not finite.
    """
    maps = maps.detach().float().cpu()
    if not bool(torch.isfinite(maps).all()):
        raise ValueError(
            'the feature map holds values that are not finite: the weights, or the image, are '
            'broken; evaluate the checkpoint first.'
        )
    smooth = dict(mode=mode, align_corners=False) if mode == 'bilinear' else dict(mode=mode)
    padded = tuple(sample.metainfo.get('batch_input_shape', sample.img_shape)[:2])
    height, width = picture_extent(sample)
    whole = F.interpolate(maps[None], size=padded, **smooth)[..., :height, :width]
    return F.interpolate(whole, size=tuple(shape), **smooth)[0]


def paint_heat(
    heat: Tensor, picture: Optional[np.ndarray] = None, alpha: float = 0.5
) -> np.ndarray:
    """Paint a map in colours, blue (its least value) to red (its greatest), on a picture or alone.

    The painting is that of MMEngine's ``Visualizer.draw_featmap``.

    Args:
        heat (Tensor): (H, W).
        picture (ndarray, optional): (H, W, 3) uint8 RGB.
        alpha (float): Share of the colours in [0, 1], the picture's being the rest. Defaults to
            0.5.

    Returns:
        ndarray: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: If ``alpha`` is out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha is {alpha}, but must lie in [0, 1]: 0 shows the picture alone.')
    return Visualizer.draw_featmap(
        heat[None], picture, channel_reduction='squeeze_mean', alpha=alpha
    )


def add_colour_bar(picture: np.ndarray, low: float, high: float) -> np.ndarray:
    """Put the scale of :func:`paint_heat` at the right of a picture.

    Args:
        picture (ndarray): (H, W, 3) uint8 RGB.
        low (float): Value of the lowest colour.
        high (float): Value of the highest colour.

    Returns:
        ndarray: (H, W', 3) uint8 RGB.
    """
    texts = [f'{value:.3g}' for value in (high, low)]
    widths, line = zip(*(text_size(text) for text in texts))
    height = picture.shape[0]
    bar = np.full((height, _GAP + _BAR + 4 + max(widths), 3), 255, np.uint8)
    ramp = torch.linspace(1, 0, height)[:, None].expand(-1, _BAR)
    bar[:, _GAP : _GAP + _BAR] = paint_heat(ramp.contiguous())
    for text, y in zip(texts, (0, max(height - line[0], 0))):
        draw_text(bar, _GAP + _BAR + 4, y, text, (0, 0, 0))
    return cv2.hconcat([picture, bar])
