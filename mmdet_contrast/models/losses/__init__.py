"""Losses."""

from .complete_iou import complete_iou
from .nt_xent_loss import NTXentLoss, nt_xent_loss
from .soft_target_bce_loss import SoftTargetBCELoss
from .yolo_ciou_loss import YOLOCIoULoss

__all__ = ['NTXentLoss', 'SoftTargetBCELoss', 'YOLOCIoULoss', 'complete_iou', 'nt_xent_loss']
