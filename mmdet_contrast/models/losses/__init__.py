"""Losses."""

from mmdet_contrast.compat import extend_focal_loss

from .box_distribution_kl import BoxDistributionKLLoss
from .channel_wise_divergence import ChannelWiseDivergence
from .complete_iou import YOLOCIoULoss, complete_iou
from .logits_kl_divergence import LogitsKLDivergence
from .nt_xent_loss import NTXentLoss
from .pair_criterion import PairBatch, PairCriterion, Terms
from .patch_nce_loss import PatchNCELoss
from .simsiam_loss import SimSiamLoss, negative_cosine
from .soft_target_bce_loss import SoftTargetBCELoss
from .supcon_loss import SupConLoss
from .triplet_loss import TripletLoss

__all__ = [
    'BoxDistributionKLLoss',
    'ChannelWiseDivergence',
    'LogitsKLDivergence',
    'NTXentLoss',
    'PairBatch',
    'PairCriterion',
    'PatchNCELoss',
    'SimSiamLoss',
    'SoftTargetBCELoss',
    'SupConLoss',
    'Terms',
    'TripletLoss',
    'YOLOCIoULoss',
    'complete_iou',
    'negative_cosine',
]

extend_focal_loss()
