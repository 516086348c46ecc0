"""The neck of YOLOv8."""

from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from ..layers.yolov8 import INIT_CFG, NORM_CFG, C2f, conv, scale_channels, scale_depth


@MODELS.register_module()
class YOLOv8PAFPN(BaseModule):
    """Path aggregation (PANet, arXiv 1803.01534) with C2f blocks, as in YOLOv8.

    Args:
        in_channels (Sequence[int]): Channels of the backbone's outputs at width 1, finest first.
        out_channels (Sequence[int], optional): Channels of the outputs at width 1; those of the
            inputs by default.
        deepen_factor (float): Factor of the number of bottlenecks of a C2f, which is 3.
        widen_factor (float): Factor of the channels. 1 for a backbone that is not widened, whose
            channels are then taken as they are.
        norm_cfg (dict): Normalisation of the convolutions.
        init_cfg (dict, optional): Initialisation; Kaiming for plain convolutions by default.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024),
        out_channels: Optional[Sequence[int]] = None,
        deepen_factor: float = 1.0,
        widen_factor: float = 1.0,
        norm_cfg: dict = NORM_CFG,
        init_cfg: Optional[Union[dict, List[dict]]] = None,
    ) -> None:
        super().__init__(init_cfg=INIT_CFG if init_cfg is None else init_cfg)
        out_channels = in_channels if out_channels is None else out_channels
        ins = [scale_channels(c, widen_factor) for c in in_channels]
        outs = [scale_channels(c, widen_factor) for c in out_channels]
        self.in_channels, self.out_channels = tuple(ins), tuple(outs)
        c2f: Dict[str, Any] = dict(
            num_blocks=scale_depth(3, deepen_factor), shortcut=False, norm_cfg=norm_cfg
        )

        self.top_down_blocks = ModuleList()
        self.downsamples = ModuleList()
        self.bottom_up_blocks = ModuleList()
        last = len(ins) - 1
        # what comes from above: the backbone's last map, then the blocks' outputs
        above = ins[last]
        for level in range(last - 1, -1, -1):
            self.top_down_blocks.append(C2f(above + ins[level], outs[level], **c2f))
            above = outs[level]
        for level in range(1, last + 1):
            below = outs[level - 1]
            self.downsamples.append(conv(below, below, 3, norm_cfg, stride=2))
            lateral = ins[last] if level == last else outs[level]
            self.bottom_up_blocks.append(C2f(below + lateral, outs[level], **c2f))

    def forward(self, inputs: Sequence[Tensor]) -> Tuple[Tensor, ...]:
        """Compute the pyramid.

        Args:
            inputs (Sequence[Tensor]): (N, C_l, H_l, W_l) features, finest first, each map half
                the size of the one before: the sides of the images are multiples of the coarsest
                stride (``pad_size_divisor=32`` of the data preprocessor).

        Returns:
            tuple[Tensor]: (N, out_channels[l], H_l, W_l).
        """
        maps = [inputs[-1]]
        for block, lateral in zip(self.top_down_blocks, reversed(inputs[:-1])):
            above = F.interpolate(maps[0], scale_factor=2, mode='nearest')
            maps.insert(0, block(torch.cat((above, lateral), dim=1)))
        outs = [maps[0]]
        for downsample, block, lateral in zip(self.downsamples, self.bottom_up_blocks, maps[1:]):
            outs.append(block(torch.cat((downsample(outs[-1]), lateral), dim=1)))
        return tuple(outs)
