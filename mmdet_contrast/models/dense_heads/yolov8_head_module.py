"""The layers of the YOLOv8 head."""

from math import log
from typing import List, Optional, Sequence, Tuple, Union

from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleList, Sequential
from torch import Tensor, nn

from ..layers.c2f import ACT_CFG, INIT_CFG, NORM_CFG


@MODELS.register_module()
class YOLOv8HeadModule(BaseModule):
    """Two branches of convolutions for each level: classes, and distributions of the sides.

    Args:
        num_classes (int): Number of classes.
        in_channels (Sequence[int]): Channels of each level.
        strides (Sequence[int]): Stride of each level in pixels.
        reg_max (int): Bins of the distribution of a side's distance.
        cls_channels (int, optional): Channels of the classes' branch. Defaults to YOLOv8's, those
            of the first level or the number of classes (at most 100), whichever is larger; only
            where it is equal do detectors of different classes share the weights of that branch.
        norm_cfg (dict): Normalisation of the convolutions.
        act_cfg (dict): Activation of the convolutions.
        init_cfg (dict, optional): Initialisation; Kaiming for plain convolutions by default.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        strides: Sequence[int] = (8, 16, 32),
        reg_max: int = 16,
        cls_channels: Optional[int] = None,
        norm_cfg: dict = NORM_CFG,
        act_cfg: dict = ACT_CFG,
        init_cfg: Optional[Union[dict, List[dict]]] = None,
    ) -> None:
        super().__init__(init_cfg=INIT_CFG if init_cfg is None else init_cfg)
        self.num_classes = num_classes
        self.strides = tuple(strides)
        reg_channels = max(16, in_channels[0] // 4, 4 * reg_max)
        cls_channels = cls_channels or max(in_channels[0], min(num_classes, 100))
        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)

        def branch(channels: int, width: int, out: int) -> Sequential:
            return Sequential(
                ConvModule(channels, width, 3, padding=1, **cfg),
                ConvModule(width, width, 3, padding=1, **cfg),
                nn.Conv2d(width, out, 1),
            )

        self.reg_convs = ModuleList(branch(c, reg_channels, 4 * reg_max) for c in in_channels)
        self.cls_convs = ModuleList(branch(c, cls_channels, num_classes) for c in in_channels)

    def init_weights(self) -> None:
        """Initialise; the biases expect about five objects in a picture of 640 x 640 pixels."""
        super().init_weights()
        for reg, cls, stride in zip(self.reg_convs, self.cls_convs, self.strides):
            nn.init.constant_(reg[-1].bias, 1.0)
            nn.init.constant_(cls[-1].bias, log(5 / self.num_classes / (640 / stride) ** 2))

    def forward(self, x: Sequence[Tensor]) -> Tuple[List[Tensor], List[Tensor]]:
        """Compute the raw maps, in training and in eval mode alike.

        Args:
            x (Sequence[Tensor]): (N, C_l, H_l, W_l) features of each level.

        Returns:
            tuple[list[Tensor], list[Tensor]]: (N, num_classes, H_l, W_l) logits of the classes
            and (N, 4 * reg_max, H_l, W_l) logits of the sides' bins (left, top, right, bottom).
        """
        return (
            [convs(feat) for convs, feat in zip(self.cls_convs, x)],
            [convs(feat) for convs, feat in zip(self.reg_convs, x)],
        )
