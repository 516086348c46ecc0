"""What backbone, neck and head of YOLOv8 are made of: sizes, C2f and SPPF."""

from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

NORM_CFG = dict(type='BN', momentum=0.03, eps=0.001)
# of the convolutions that no ConvModule initialises: PyTorch's own default
INIT_CFG = dict(
    type='Kaiming',
    layer='Conv2d',
    a=5**0.5,
    distribution='uniform',
    mode='fan_in',
    nonlinearity='leaky_relu',
)


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
    """Return widened channels, rounded up to a multiple of 8; with a factor of 1 as they are."""
    return channels if widen_factor == 1 else 8 * ceil(channels * widen_factor / 8)


def scale_depth(blocks: int, deepen_factor: float) -> int:
    """Return the number of blocks at a depth, at least 1."""
    return max(round(blocks * deepen_factor), 1)


def conv(ins: int, outs: int, size: int, norm_cfg: dict, stride: int = 1) -> ConvModule:
    """Build a convolution with normalisation and SiLU."""
    act_cfg = dict(type='SiLU')
    return ConvModule(ins, outs, size, stride, size // 2, norm_cfg=norm_cfg, act_cfg=act_cfg)


class _Bottleneck(BaseModule):
    """Two 3x3 convolutions, with a shortcut where asked for."""

    def __init__(self, channels: int, shortcut: bool, norm_cfg: dict) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3, norm_cfg)
        self.conv2 = conv(channels, channels, 3, norm_cfg)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        return x + out if self.shortcut else out


class C2f(BaseModule):
    """Split the channels, send one half through bottlenecks and concatenate every stage.

    The block of YOLOv8: a 1x1 convolution to ``2c`` channels, split in two; each of ``num_blocks``
    bottlenecks takes the last part and appends its own; a 1x1 convolution of all ``2 + num_blocks``
    parts.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output; ``c`` is half of them.
        num_blocks (int): Bottlenecks.
        shortcut (bool): Whether a bottleneck adds its input to its output.
        norm_cfg (dict): Normalisation of the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 1,
        shortcut: bool = True,
        norm_cfg: dict = NORM_CFG,
    ) -> None:
        super().__init__()
        channels = out_channels // 2
        blocks = (_Bottleneck(channels, shortcut, norm_cfg) for _ in range(num_blocks))
        self.in_conv = conv(in_channels, 2 * channels, 1, norm_cfg)
        self.blocks = ModuleList(blocks)
        self.out_conv = conv((2 + num_blocks) * channels, out_channels, 1, norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x (Tensor): (N, in_channels, H, W).

        Returns:
            Tensor: (N, out_channels, H, W).
        """
        parts = list(self.in_conv(x).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.out_conv(torch.cat(parts, dim=1))


class SPPF(BaseModule):
    """Concatenate the input with its maxima over 5, 9 and 13 cells, between 1x1 convolutions.

    The value is that of MMDetection's ``SPPBottleneck`` (spatial pyramid pooling, arXiv
    1406.4729); pooling the pooled maps again costs a fraction of pooling with large windows.

    Args:
        in_channels (int): Channels of the input; half as many are pooled.
        out_channels (int): Channels of the output.
        norm_cfg (dict): Normalisation of the convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict = NORM_CFG) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, in_channels // 2, 1, norm_cfg)
        self.conv2 = conv(4 * (in_channels // 2), out_channels, 1, norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Pool.

        Args:
            x (Tensor): (N, in_channels, H, W).

        Returns:
            Tensor: (N, out_channels, H, W).
        """
        parts = [self.conv1(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], kernel_size=5, stride=1, padding=2))
        return self.conv2(torch.cat(parts, dim=1))
