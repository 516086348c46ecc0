"""Binary cross-entropy with soft targets."""

from typing import Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn


# MMDetection's CrossEntropyLoss(use_sigmoid=True) gives the same value without `class_weight`. Its
# `class_weight` is the factor of the positive terms alone (PyTorch's `pos_weight`): a weight of 0
# trains every score of that class towards 0, where this loss leaves them alone.
@MODELS.register_module()
class SoftTargetBCELoss(nn.Module):
    """Sum of the binary cross-entropies of logits and targets in [0, 1] over ``avg_factor``.

    The classification loss of YOLOv8.

    Args:
        loss_weight (float): Factor of the loss.
        class_weight (Sequence[float], optional): A factor for each class, which are the second
            dimension of the logits. With 0 for the classes that the data does not annotate these
            are left to another loss, such as a teacher's.
    """

    use_sigmoid = True

    def __init__(
        self, loss_weight: float = 1.0, class_weight: Optional[Sequence[float]] = None
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        weight = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float)
        self.register_buffer('class_weight', weight, persistent=False)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Union[float, Tensor, None] = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            pred (Tensor): Logits of any shape; (N, C, ...) with class weights.
            target (Tensor): Targets of the same shape.
            weight (Tensor, optional): Weights, broadcast with the targets.
            avg_factor (float | Tensor, optional): Divisor of the sum; the number of logits by
                default.

        Returns:
            Tensor: Scalar.
        """
        if self.class_weight is not None:
            by_class = self.class_weight.to(pred).reshape(-1, *[1] * (pred.dim() - 2))
            weight = by_class if weight is None else weight * by_class
        total = F.binary_cross_entropy_with_logits(pred, target, weight, reduction='sum')
        divisor = max(pred.numel(), 1) if avg_factor is None else avg_factor
        return self.loss_weight * total / divisor
