"""The backbone of YOLOv8."""

from typing import List, Optional, Sequence, Tuple, Union

from mmdet.registry import MODELS
from mmengine.model import BaseModule, Sequential
from torch import Tensor

from ..layers.yolov8 import INIT_CFG, NORM_CFG, SPPF, C2f, conv, scale_channels, scale_depth


@MODELS.register_module()
class YOLOv8CSPDarknet(BaseModule):
    """CSPDarknet of YOLOv8: a stem and four stages of a strided convolution and a C2f.

    SPPF ends the last stage. The published sizes are pairs of factors and a width of the last
    stage, see ``YOLOV8_SCALES``; ``YOLOv8Detector(scale='n')`` fills them in.

    Args:
        deepen_factor (float): Factor of the number of bottlenecks (3, 6, 6, 3).
        widen_factor (float): Factor of the channels (64, 128, 256, 512, last).
        last_stage_out_channels (int): Channels of the last stage at width 1.
        in_channels (int): Channels of the images.
        out_indices (Sequence[int]): Outputs: 0 is the stem (stride 2), 4 the last stage (32).
        norm_cfg (dict): Normalisation of the convolutions.
        init_cfg (dict, optional): Initialisation; Kaiming for plain convolutions by default.

    Examples:
        >>> backbone = YOLOv8CSPDarknet(deepen_factor=0.33, widen_factor=0.25)
        >>> [tuple(out.shape) for out in backbone(torch.rand(1, 3, 64, 64))]
        [(1, 64, 8, 8), (1, 128, 4, 4), (1, 256, 2, 2)]
    """

    BLOCKS = (3, 6, 6, 3)

    def __init__(
        self,
        deepen_factor: float = 1.0,
        widen_factor: float = 1.0,
        last_stage_out_channels: int = 1024,
        in_channels: int = 3,
        out_indices: Sequence[int] = (2, 3, 4),
        norm_cfg: dict = NORM_CFG,
        init_cfg: Optional[Union[dict, List[dict]]] = None,
    ) -> None:
        super().__init__(init_cfg=INIT_CFG if init_cfg is None else init_cfg)
        self.out_indices = tuple(out_indices)

        channels = [
            scale_channels(c, widen_factor) for c in (64, 128, 256, 512, last_stage_out_channels)
        ]
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.stem = conv(in_channels, channels[0], 3, norm_cfg, stride=2)
        self.layers = ['stem']
        for i, blocks in enumerate(self.BLOCKS):
            width, depth = channels[i + 1], scale_depth(blocks, deepen_factor)
            stage = [
                conv(channels[i], width, 3, norm_cfg, stride=2),
                C2f(width, width, depth, norm_cfg=norm_cfg),
            ]
            if i == len(self.BLOCKS) - 1:
                stage.append(SPPF(width, width, norm_cfg))
            self.layers.append(f'stage{i + 1}')
            self.add_module(self.layers[-1], Sequential(*stage))

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Compute the features.

        Args:
            x (Tensor): (N, in_channels, H, W) images.

        Returns:
            tuple[Tensor]: (N, C_i, H / 2**(i + 1), W / 2**(i + 1)) for each index of
            ``out_indices``.
        """
        outs = []
        for i, name in enumerate(self.layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)
