"""Divergence of class logits."""

from typing import Callable, Optional, Sequence, Union

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
    the size of the images, as a mean over images (``'batchmean'``) does. With weights it is the
    weighted sum over the sum of the weights, taken as 1 where that is smaller.

    Args:
        tau (float): Temperature :math:`\tau`, > 0.
        mode (str): ``'bernoulli'`` or ``'softmax'``.
        loss_weight (float): Factor of the result.

    Examples:
        A teacher of three classes, which are classes 4, 0 and 2 of a student of five:

        >>> loss = LogitsKLDivergence(tau=2.0)
        >>> student, teacher = torch.randn(2, 5, 10, 10), torch.randn(2, 3, 10, 10)
        >>> loss(student, teacher, student_index=torch.tensor([4, 0, 2]))
    """

    distills = 'classes'
    """What ``DistillationDetector`` hands over."""

    def __init__(self, tau: float = 1.0, mode: str = 'bernoulli', loss_weight: float = 1.0) -> None:
        super().__init__()
        if tau <= 0:
            raise ValueError(f'tau={tau} given to LogitsKLDivergence, a number above 0 expected.')
        if mode not in MODES:
            raise ValueError(f'mode={mode!r} given to LogitsKLDivergence, one of {MODES} expected.')
        self.tau = tau
        self.mode = mode
        self.loss_weight = loss_weight

    def forward(
        self,
        student_logits: Levels,
        teacher_logits: Levels,
        weight: Optional[Levels] = None,
        student_index: Optional[Tensor] = None,
    ) -> Tensor:
        """Compute the mean divergence of a location.

        Args:
            student_logits (Tensor | Sequence[Tensor]): (N, C, H, W) logits, (N, A, C) or (L, C), or
                a list of such, one for each level. Heads with several anchors at a position:
                reshape to (L, C) first.
            teacher_logits (Tensor | Sequence[Tensor]): Likewise, with K classes; gets no gradient.
            weight (Tensor | Sequence[Tensor], optional): Weights >= 0 of the locations, (N, H, W),
                (N, A) or (L,), in a list where the logits are; gets no gradient.
            student_index (Tensor, optional): (K,) integers, the student's channel of each class of
                the teacher. Without it both have the same classes in the same order.

        Returns:
            Tensor: Scalar in float32 or float64; 0 and connected to the student where there is no
            location.

        Raises:
            ValueError: If levels or shapes do not fit.
        """

        def divergence(student: Tensor, teacher: Tensor) -> Tensor:
            axis = 1 if student.dim() == 4 else -1
            if student_index is not None:
                student = student.index_select(axis, student_index.to(student.device))
            if student.shape != teacher.shape:
                raise ValueError(
                    f'LogitsKLDivergence got student logits of shape {tuple(student.shape)}'
                    f'{"" if student_index is None else " after student_index"} and teacher logits '
                    f'of shape {tuple(teacher.shape)}; one shape expected: give student_index, the '
                    "student's channel of each class of the teacher."
                )
            return self._divergence(student, teacher, axis)

        mean = mean_over_locations(
            divergence, student_logits, teacher_logits, weight, type(self).__name__
        )
        return self.loss_weight * self.tau**2 * mean

    def _divergence(self, student: Tensor, teacher: Tensor, axis: int) -> Tensor:
        """Return the divergence of each location: the shape without the axis of the classes."""
        s, t = student / self.tau, teacher / self.tau
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
    name: str,
) -> Tensor:
    """Compute the weighted mean of a divergence over the locations of all levels.

    Args:
        divergence (Callable): From a level of the student and of the teacher, both without
            autocast and the teacher without gradient, to the divergence of each location.
        student (Tensor | Sequence[Tensor]): A level or several, each (N, C, H, W), (N, A, C) or
            (L, C).
        teacher (Tensor | Sequence[Tensor]): Likewise.
        weight (Tensor | Sequence[Tensor], optional): Weights of the locations by level.
        name (str): The loss that asks, for messages.

    Returns:
        Tensor: Scalar: the mean; with weights the weighted sum over their sum, or over 1 where
        that is smaller.

    Raises:
        ValueError: If levels or shapes do not fit.
    """
    students, teachers = ([x] if isinstance(x, Tensor) else list(x) for x in (student, teacher))
    weights = [weight] if isinstance(weight, Tensor) else list(weight or [None] * len(students))
    if not len(students) == len(teachers) == len(weights) or not students:
        raise ValueError(
            f'{name} got {len(students)} levels of the student, {len(teachers)} of the teacher and '
            f'{len(weights)} of weights; the same number of each expected, at least one.'
        )
    totals, weight_sums, count = [], [], 0
    for s, t, w in zip(students, teachers, weights):
        if s.dim() != t.dim() or s.dim() not in (2, 3, 4):
            raise ValueError(
                f'{name} got a student level of shape {tuple(s.shape)} and a teacher level of '
                f'shape {tuple(t.shape)}; both (N, C, H, W), (N, A, C) or (L, C) expected.'
            )
        dtype = torch.promote_types(s.dtype, torch.float32)
        with torch.autocast(device_type=s.device.type, enabled=False):
            values = divergence(s.to(dtype), t.detach().to(dtype))
        if w is not None:
            if w.shape != values.shape:
                raise ValueError(
                    f'{name} got weights of shape {tuple(w.shape)}, {tuple(values.shape)} '
                    'expected: one for each location.'
                )
            w = w.detach().to(values)
            values = values * w
            weight_sums.append(w.sum())
        totals.append(values.sum())
        count += values.numel()
    total = torch.stack(totals).sum()
    if weight is None:
        return total / max(count, 1)
    # weights that sum to next to nothing must not blow up the few locations that have any
    return total / torch.stack(weight_sums).sum().clamp(min=1)
