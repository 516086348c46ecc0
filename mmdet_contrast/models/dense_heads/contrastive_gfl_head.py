"""GFLHead with the region-contrastive loss."""

from mmdet.models.dense_heads import GFLHead
from mmdet.registry import MODELS

from .region_contrast_mixin import RegionContrastMixin


@MODELS.register_module()
class ContrastiveGFLHead(RegionContrastMixin, GFLHead):
    """MMDetection's ``GFLHead`` with :class:`RegionContrast` beside its own losses.

    Args:
        *args: As in ``GFLHead``.
        contrast (dict, optional): Config of ``RegionContrast``.
        **kwargs: As in ``GFLHead``.
    """
