"""Spatial pyramid pooling, fast."""

from typing import Optional

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor

from .c2f import ACT_CFG, NORM_CFG


class SPPF(BaseModule):
    """Concatenate the input with its maxima over 5, 9 and 13 cells, between 1x1 convolutions.

    The value is that of MMDetection's ``SPPBottleneck`` (spatial pyramid pooling, arXiv
    1406.4729); pooling the pooled maps again costs a fraction of pooling with large windows.

    Args:
        in_channels (int): Channels of the input; half as many are pooled.
        out_channels (int): Channels of the output.
        kernel_size (int): Window of each of the three poolings in cells, odd.
        norm_cfg (dict): Normalisation of the convolutions.
        act_cfg (dict): Activation of the convolutions.
        init_cfg (dict, optional): Initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        norm_cfg: dict = NORM_CFG,
        act_cfg: dict = ACT_CFG,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.kernel_size = kernel_size
        self.conv1 = ConvModule(in_channels, in_channels // 2, 1, **cfg)
        self.conv2 = ConvModule(4 * (in_channels // 2), out_channels, 1, **cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Pool.

        Args:
            x (Tensor): (N, in_channels, H, W).

        Returns:
            Tensor: (N, out_channels, H, W).
        """
        parts = [self.conv1(x)]
        for _ in range(3):
            parts.append(
                F.max_pool2d(parts[-1], self.kernel_size, stride=1, padding=self.kernel_size // 2)
            )
        return self.conv2(torch.cat(parts, dim=1))
