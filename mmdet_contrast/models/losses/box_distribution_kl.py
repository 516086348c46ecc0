"""Divergence of the distributions of boxes' sides."""

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from .location_divergence import LocationDivergence


@MODELS.register_module()
class BoxDistributionKLLoss(LocationDivergence):
    r"""Divergence of the student's distributions of the four sides from the teacher's.

    Heads such as YOLOv8's and GFL's give each side of a box as a distribution over bins. Each side
    has its own softmax (a softmax over all ``4 * reg_max`` channels would let the sides compete),
    with logits over the temperature :math:`\tau`:

    .. math::
        \frac{\tau^2}{n} \sum_a w_a \frac{1}{4} \sum_{side} KL(p^T_{a,side} \,\|\, p^S_{a,side})

    The weights :math:`w` are meant to follow the teacher's scores: where it sees no object its
    boxes are noise (YOLO LwF, arXiv 2503.04688). Their sum is then the ``avg_factor`` :math:`n`,
    which is the number of locations by default.

    Args:
        tau (float): Temperature :math:`\tau`, > 0.
        loss_weight (float): Factor of the result.
        reg_max (int): Bins of a side: ``reg_max`` of YOLOv8's head, ``reg_max + 1`` of GFL's.

    Examples:
        >>> loss = BoxDistributionKLLoss(reg_max=16)
        >>> student, teacher = torch.randn(2, 8, 64, 100)
        >>> weight = torch.rand(8, 100)
        >>> loss(student, teacher, weight, avg_factor=weight.sum())
    """

    distills = 'boxes'
    """What ``DistillationDetector`` hands over."""

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0, reg_max: int = 16) -> None:
        super().__init__(tau, loss_weight)
        self.reg_max = reg_max

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute each location's divergence, mean over sides; see the base class."""
        sides = (4, self.reg_max)
        log_s = F.log_softmax(student.unflatten(1, sides), 2)
        log_t = F.log_softmax(teacher.unflatten(1, sides), 2)
        return F.kl_div(log_s, log_t, reduction='none', log_target=True).sum(2).mean(1)
