"""FCOSHead with the region-contrastive loss."""

from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import MODELS

from .region_contrast_mixin import RegionContrastMixin


@MODELS.register_module()
class ContrastiveFCOSHead(RegionContrastMixin, FCOSHead):
    """MMDetection's ``FCOSHead`` with :class:`RegionContrast` beside its own losses.

    Args:
        *args: As in ``FCOSHead``.
        contrast (dict, optional): Config of ``RegionContrast``.
        **kwargs: As in ``FCOSHead``.
    """
