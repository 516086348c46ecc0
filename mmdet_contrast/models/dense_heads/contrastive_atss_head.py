"""ATSSHead with the region-contrastive loss."""

from mmdet.models.dense_heads import ATSSHead
from mmdet.registry import MODELS

from .region_contrast_mixin import RegionContrastMixin


@MODELS.register_module()
class ContrastiveATSSHead(RegionContrastMixin, ATSSHead):
    """MMDetection's ``ATSSHead`` with :class:`RegionContrast` beside its own losses.

    Args:
        *args: As in ``ATSSHead``.
        contrast (dict, optional): Config of ``RegionContrast``.
        **kwargs: As in ``ATSSHead``.
    """
