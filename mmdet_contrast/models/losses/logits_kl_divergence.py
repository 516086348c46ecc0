"""Divergence of class logits."""

from typing import Callable, List, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

Levels = Union[Tensor, Sequence[Tensor]]
MODES = ('bernoulli', 'softmax')


@MODELS.register_module()
class LogitsKLDivergence(nn.Module):
    r"""Divergence of the student's class scores from the teacher's (arXiv 1503.02531).

    At each location, with logits :math:`s` and :math:`t` over :math:`\tau`, summed over classes:

    - ``'bernoulli'``: each class is a yes or no of its own, as in heads with sigmoid scores:
      :math:`\tau^2 \sum_c KL(\sigma(t_c) \,\|\, \sigma(s_c))`. Sees the level of the scores.
    - ``'softmax'``: the classes compete: :math:`\tau^2 KL(softmax(t) \,\|\, softmax(s))`. Blind to
      anything added to all classes of a location, so sigmoid scores may drift away under it.

    The result is the mean over the locations of all levels and images, so it does not grow with
    the size of the images, as a mean over images (``'batchmean'``) does. Weights multiply the
    divergence of a location, and ``avg_factor`` replaces the number of locations as the divisor.

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
        super().__init__()
        # anything else would silently be one of them
        if mode not in MODES:
            raise ValueError(f'LogitsKLDivergence got mode={mode!r}, one of {MODES} expected.')
        self.tau = tau
        self.mode = mode
        self.loss_weight = loss_weight

    def forward(
        self,
        student_logits: Levels,
        teacher_logits: Levels,
        weight: Optional[Levels] = None,
        avg_factor: Optional[Tensor] = None,
    ) -> Tensor:
        """Compute the mean divergence of a location.

        Args:
            student_logits (Tensor | Sequence[Tensor]): (N, C, H, W) logits, (N, A, C) or (L, C), or
                a list of such, one for each level. Heads with several anchors at a position:
                reshape to (L, C) first.
            teacher_logits (Tensor | Sequence[Tensor]): Likewise; gets no gradient.
            weight (Tensor | Sequence[Tensor], optional): Weights >= 0 of the locations, (N, H, W),
                (N, A) or (L,), in a list where the logits are; gets no gradient.
            avg_factor (Tensor, optional): Scalar that the sum is divided by.

        Returns:
            Tensor: Scalar in float32 or float64; 0 and connected to the student where there is no
            location.

        Raises:
            ValueError: If student and teacher have other levels or shapes.
        """
        mean = mean_over_locations(
            self._divergence, student_logits, teacher_logits, weight, avg_factor
        )
        return self.loss_weight * self.tau**2 * mean

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the divergence of each location: the shape without the axis of the classes."""
        axis, s, t = _class_axis(student), student / self.tau, teacher / self.tau
        if self.mode == 'softmax':
            log_s, log_t = F.log_softmax(s, axis), F.log_softmax(t, axis)
            return (log_t.exp() * (log_t - log_s)).sum(axis)
        # log sigmoid(x) = x - softplus(x) and log(1 - sigmoid(x)) = -softplus(x)
        return (t.sigmoid() * (t - s) + F.softplus(s) - F.softplus(t)).sum(axis)


def mean_over_locations(
    divergence: Callable[[Tensor, Tensor], Tensor],
    student: Levels,
    teacher: Levels,
    weight: Optional[Levels],
    avg_factor: Optional[Tensor] = None,
) -> Tensor:
    """Compute the mean of a divergence over the locations of all levels.

    Args:
        divergence (Callable): From a level of the student and of the teacher, both without
            autocast and the teacher without gradient, to the divergence of each location.
        student (Tensor | Sequence[Tensor]): A level or several, each (N, C, H, W), (N, A, C) or
            (L, C).
        teacher (Tensor | Sequence[Tensor]): Likewise.
        weight (Tensor | Sequence[Tensor], optional): Weights of the locations by level.
        avg_factor (Tensor, optional): Scalar that the sum is divided by.

    Returns:
        Tensor: Scalar: the weighted sum over ``avg_factor``, or over the number of locations.

    Raises:
        ValueError: If student and teacher have other levels or shapes.
    """
    students, teachers = _levels(student), _levels(teacher)
    weights = [None] * len(students) if weight is None else _levels(weight)
    shapes = [[tuple(level.shape) for level in levels] for levels in (students, teachers)]
    # a single class or location would be broadcast, and levels without a counterpart left out
    if shapes[0] != shapes[1] or len(weights) != len(students):
        raise ValueError(
            f'the levels of the student have the shapes {shapes[0]}, those of the teacher '
            f'{shapes[1]}, with {len(weights)} weights: the same shapes expected, and as many '
            'weights; where the classes differ, select those that both have.'
        )
    totals, count = [], 0
    for s, t, w in zip(students, teachers, weights):
        dtype = torch.promote_types(s.dtype, torch.float32)
        with torch.autocast(device_type=s.device.type, enabled=False):
            values = divergence(s.to(dtype), t.detach().to(dtype))
        count += values.numel()
        if w is not None:
            values = values * w.detach().to(values)
        totals.append(values.sum())
    total = torch.stack(totals).sum()
    return total / (max(count, 1) if avg_factor is None else avg_factor)


def _levels(given: Levels) -> List[Tensor]:
    return [given] if isinstance(given, Tensor) else list(given)


def _class_axis(logits: Tensor) -> int:
    return 1 if logits.dim() == 4 else logits.dim() - 1
