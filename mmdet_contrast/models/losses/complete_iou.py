"""Complete IoU, and the loss of it, as YOLO has them."""

from math import pi
from typing import Optional, Union

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn


def complete_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compute the complete IoU of corresponding boxes (CIoU, arXiv 1911.08287, eq. 10).

    ``IoU - d² / c² - alpha * v``: d is the distance of the centres, c the diagonal of the
    enclosing box, v the difference of the aspect ratios' angles; ``alpha = v / (1 - IoU + v)``
    at every IoU and without gradient, as YOLO has it. MMDetection's ``CIoULoss`` sets alpha to 0
    below an IoU of 0.5.

    Args:
        boxes1 (Tensor): (..., 4) boxes ``(x1, y1, x2, y2)``, float.
        boxes2 (Tensor): (..., 4) boxes, broadcast with the first.

    Returns:
        Tensor: (...) values in (-1.5, 1].
    """
    # finite for equal and for empty boxes
    eps = 1e-7
    x11, y11, x12, y12 = boxes1.unbind(-1)
    x21, y21, x22, y22 = boxes2.unbind(-1)
    w1, h1, w2, h2 = x12 - x11, y12 - y11 + eps, x22 - x21, y22 - y21 + eps
    width = (torch.minimum(x12, x22) - torch.maximum(x11, x21)).clamp(min=0)
    height = (torch.minimum(y12, y22) - torch.maximum(y11, y21)).clamp(min=0)
    overlap = width * height
    iou = overlap / (w1 * h1 + w2 * h2 - overlap + eps)

    enclosing_width = torch.maximum(x12, x22) - torch.minimum(x11, x21)
    enclosing_height = torch.maximum(y12, y22) - torch.minimum(y11, y21)
    diagonal = enclosing_width**2 + enclosing_height**2 + eps
    distance = ((x21 + x22 - x11 - x12) ** 2 + (y21 + y22 - y11 - y12) ** 2) / 4
    v = (4 / pi**2) * (torch.atan(w2 / h2) - torch.atan(w1 / h1)) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + (1 + eps))
    return iou - (distance / diagonal + v * alpha)


@MODELS.register_module()
class YOLOCIoULoss(nn.Module):
    """``1 - CIoU`` (arXiv 1911.08287) with alpha at every IoU, see :func:`complete_iou`.

    Args:
        loss_weight (float): Factor of the loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Union[float, Tensor, None] = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            pred (Tensor): (K, 4) boxes ``(x1, y1, x2, y2)``, float; K may be 0.
            target (Tensor): (K, 4) boxes.
            weight (Tensor, optional): (K,) weights, or (K, 4), whose mean is taken.
            avg_factor (float | Tensor, optional): Divisor of the sum; the number of boxes by
                default.

        Returns:
            Tensor: Scalar, 0 and connected to the boxes where there are none.
        """
        terms = 1 - complete_iou(pred.float(), target.float())
        if weight is not None:
            # heads with anchors weigh the four numbers of a box alike
            terms = terms * (weight.mean(dim=-1) if weight.dim() > 1 else weight)
        total = terms.sum()
        return self.loss_weight * total / (max(len(pred), 1) if avg_factor is None else avg_factor)
