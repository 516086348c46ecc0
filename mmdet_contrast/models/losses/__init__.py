"""Losses."""

from .box_distribution_kl import BoxDistributionKLLoss
from .channel_wise_divergence import ChannelWiseDivergence
from .complete_iou import complete_iou
from .logits_kl_divergence import LogitsKLDivergence
from .nt_xent_loss import NTXentLoss, nt_xent_loss
from .soft_target_bce_loss import SoftTargetBCELoss
from .yolo_ciou_loss import YOLOCIoULoss

__all__ = [
    'BoxDistributionKLLoss',
    'ChannelWiseDivergence',
    'LogitsKLDivergence',
    'NTXentLoss',
    'SoftTargetBCELoss',
    'YOLOCIoULoss',
    'complete_iou',
    'nt_xent_loss',
]
