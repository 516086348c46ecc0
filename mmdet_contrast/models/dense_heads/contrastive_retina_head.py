"""RetinaHead with the region-contrastive loss."""

from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS

from .region_contrast_mixin import RegionContrastMixin


@MODELS.register_module()
class ContrastiveRetinaHead(RegionContrastMixin, RetinaHead):
    """MMDetection's ``RetinaHead`` with :class:`RegionContrast` beside its own losses.

    Args:
        *args: As in ``RetinaHead``.
        contrast (dict, optional): Config of ``RegionContrast``.
        **kwargs: As in ``RetinaHead``.
    """
