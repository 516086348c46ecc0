"""CIoU loss as YOLO has it."""

from typing import Optional

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from .complete_iou import complete_iou


@MODELS.register_module()
class YOLOCIoULoss(nn.Module):
    """``1 - CIoU`` (arXiv 1911.08287) with alpha at every IoU, see :func:`complete_iou`.

    Args:
        reduction (str): ``'none'``, ``'mean'`` or ``'sum'``.
        loss_weight (float): Factor of the loss.
        eps (float): Added to denominators.
    """

    def __init__(
        self, reduction: str = 'mean', loss_weight: float = 1.0, eps: float = 1e-7
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.eps = eps

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[Tensor] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            pred (Tensor): (K, 4) boxes ``(x1, y1, x2, y2)``, float; K may be 0.
            target (Tensor): (K, 4) boxes.
            weight (Tensor, optional): (K,) weights.
            avg_factor (Tensor, optional): Divisor of the sum.
            reduction_override (str, optional): In place of ``reduction``.

        Returns:
            Tensor: Scalar, or (K,) without reduction.
        """
        reduction = reduction_override or self.reduction
        if len(pred) == 0 and reduction != 'none':
            return pred.sum() * 0
        loss = 1 - complete_iou(pred.float(), target.float(), self.eps)
        # in PyTorch the mean of nothing is NaN: the sum above is 0 and keeps the graph
        loss = weight_reduce_loss(loss, weight, reduction, avg_factor)
        return self.loss_weight * torch.as_tensor(loss)
