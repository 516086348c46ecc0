"""Divergence of class logits."""

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from .location_divergence import LocationDivergence

MODES = ('bernoulli', 'softmax')


@MODELS.register_module()
class LogitsKLDivergence(LocationDivergence):
    r"""Divergence of the student's class scores from the teacher's (arXiv 1503.02531).

    At each location, with logits :math:`s` and :math:`t` over :math:`\tau`, summed over classes:

    - ``'bernoulli'``: each class is a yes or no of its own, as in heads with sigmoid scores:
      :math:`\tau^2 \sum_c KL(\sigma(t_c) \,\|\, \sigma(s_c))`. Sees the level of the scores.
    - ``'softmax'``: the classes compete: :math:`\tau^2 KL(softmax(t) \,\|\, softmax(s))`. Blind to
      anything added to all classes of a location, so sigmoid scores may drift away under it.

    The result is the mean over locations, so it does not grow with the size of the images, as a
    mean over images (``'batchmean'``) does. Weights multiply the divergence of a location, and
    ``avg_factor`` replaces the number of locations as the divisor.

    Args:
        tau (float): Temperature :math:`\tau`, > 0.
        mode (str): ``'bernoulli'`` or ``'softmax'``.
        loss_weight (float): Factor of the result.

    Examples:
        A teacher of three classes, which are classes 4, 0 and 2 of a student of five:

        >>> loss = LogitsKLDivergence(tau=2.0)
        >>> student, teacher = torch.randn(2, 5, 10, 10), torch.randn(2, 3, 10, 10)
        >>> loss(student[:, [4, 0, 2]], teacher)
    """

    distills = 'classes'
    """What ``DistillationDetector`` hands over."""

    def __init__(self, tau: float = 1.0, mode: str = 'bernoulli', loss_weight: float = 1.0) -> None:
        super().__init__(tau, loss_weight)
        # anything else would silently be one of them
        if mode not in MODES:
            raise ValueError(f'LogitsKLDivergence got mode={mode!r}, one of {MODES} expected.')
        self.mode = mode

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the divergence of each location; see the base class."""
        if self.mode == 'softmax':
            log_s, log_t = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
            return F.kl_div(log_s, log_t, reduction='none', log_target=True).sum(1)
        # log sigmoid(x) = x - softplus(x) and log(1 - sigmoid(x)) = -softplus(x)
        levels = F.softplus(student) - F.softplus(teacher)
        return (teacher.sigmoid() * (teacher - student) + levels).sum(1)
