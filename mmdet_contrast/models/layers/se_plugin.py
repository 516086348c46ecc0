"""Squeeze-and-excitation for the ``plugins`` of MMDetection's backbones."""

from typing import Any

from mmdet.models.layers import SELayer
from mmdet.registry import MODELS

from mmdet_contrast.utils.config import LaunchError


@MODELS.register_module()
class SEPlugin(SELayer):
    """Weigh channels by their means over the picture (arXiv 1709.01507), as a plug-in block.

    MMDetection's ``SELayer`` under the argument by which a backbone builds its plug-ins.

    Args:
        in_channels (int): Channels of the feature map; the backbone fills it in.
        ratio (int): ``in_channels`` over the channels between the two convolutions.
        **kwargs (Any): As of ``SELayer``: ``conv_cfg``, ``act_cfg``, ``init_cfg``.

    Raises:
        LaunchError: If no channel is left between the convolutions.

    Example:
        >>> plugin = dict(cfg=dict(type='SEPlugin', ratio=16), position='after_conv3')
        >>> backbone = MODELS.build(dict(type='ResNet', depth=50, plugins=[plugin]))
    """

    _abbr_ = 'se_layer'

    def __init__(self, in_channels: int, ratio: int = 16, **kwargs: Any) -> None:
        if in_channels < ratio:
            raise LaunchError(
                f'SEPlugin has ratio={ratio} on {in_channels} channels, which leaves none to weigh '
                f'by: set a ratio of {in_channels} or less.'
            )
        super().__init__(in_channels, ratio, **kwargs)
