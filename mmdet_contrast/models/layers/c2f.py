"""C2f: cross-stage partial block with two convolutions."""

from typing import Optional

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

NORM_CFG = dict(type='BN', momentum=0.03, eps=0.001)
ACT_CFG = dict(type='SiLU')
# of the convolutions that no ConvModule initialises: PyTorch's own default
INIT_CFG = dict(
    type='Kaiming',
    layer='Conv2d',
    a=5**0.5,
    distribution='uniform',
    mode='fan_in',
    nonlinearity='leaky_relu',
)


class _Bottleneck(BaseModule):
    """Two 3x3 convolutions, with a shortcut where asked for."""

    def __init__(self, channels: int, shortcut: bool, norm_cfg: dict, act_cfg: dict) -> None:
        super().__init__()
        cfg = dict(padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv1 = ConvModule(channels, channels, 3, **cfg)
        self.conv2 = ConvModule(channels, channels, 3, **cfg)
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
        act_cfg (dict): Activation of the convolutions.
        init_cfg (dict, optional): Initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 1,
        shortcut: bool = True,
        norm_cfg: dict = NORM_CFG,
        act_cfg: dict = ACT_CFG,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        channels = out_channels // 2
        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.in_conv = ConvModule(in_channels, 2 * channels, 1, **cfg)
        self.blocks = ModuleList(_Bottleneck(channels, shortcut, **cfg) for _ in range(num_blocks))
        self.out_conv = ConvModule((2 + num_blocks) * channels, out_channels, 1, **cfg)

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
