"""Channel-wise divergence (CWD)."""

from typing import Optional, Tuple

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Elements of a slice of the maps on a processor: what is made on the way stays in its cache.
_SLICE = 2**17


@MODELS.register_module()
class ChannelWiseDivergence(nn.Module):
    r"""Divergence of the places that each channel looks at (CWD, arXiv 2011.13256).

    Every channel of a map is a distribution over its positions, :math:`p = softmax(x / \tau)` over
    H · W, and the student's is drawn to the teacher's:

    .. math::
        \frac{\tau^2}{N C} \sum_{n, c, i} p^T_{nci} \, (\log p^T_{nci} - \log p^S_{nci})

    The value is that of MMRazor's loss of the same name. The teacher gets no gradient. Mixed
    precision is computed in float32.

    Args:
        tau (float): Temperature :math:`\tau`, > 0.
        loss_weight (float): Factor of the result.

    Examples:
        >>> loss = ChannelWiseDivergence(tau=1.0, loss_weight=5.0)
        >>> student, teacher = torch.randn(2, 8, 64, 20, 20)
        >>> loss(student, teacher)
    """

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the divergence, mean over images and channels, summed over positions.

        Args:
            student (Tensor): (N, C, H, W) features, float, in any memory format.
            teacher (Tensor): (N, C, H, W) features; gets no gradient.

        Returns:
            Tensor: Scalar in float32 or float64; 0 and connected to the student where there is no
            image or no position.

        Raises:
            ValueError: If the shapes differ.
        """
        # slices of unequal maps would be compared as far as they go
        if student.shape != teacher.shape:
            raise ValueError(
                f'ChannelWiseDivergence got features of shape {tuple(student.shape)} and '
                f'{tuple(teacher.shape)}, two of one shape (N, C, H, W) expected.'
            )
        if student.numel() == 0:
            return student.sum()
        dtype = torch.promote_types(student.dtype, torch.float32)
        with torch.autocast(device_type=student.device.type, enabled=False):
            student, teacher = student.to(dtype), teacher.detach().to(dtype)
            rows = student.shape[0] * student.shape[1]
            total = _Divergence.apply(
                student.reshape(rows, -1), teacher.reshape(rows, -1), self.tau
            )
            return total * (self.loss_weight * self.tau**2 / rows)


class _Divergence(Function):
    """Sum over rows of ``KL(softmax(teacher / tau) || softmax(student / tau))``.

    Autograd would keep three tensors of the size of the features and pass a dozen times over them.
    Here slices that stay in the cache give value and gradient at once; only the latter is kept.
    """

    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor, tau: float) -> Tensor:
        size = max(1, _SLICE // student.shape[1]) if student.device.type == 'cpu' else len(student)
        difference = torch.empty_like(student)
        terms = []
        for start in range(0, len(student), size):
            rows = slice(start, start + size)
            s, t = student[rows], teacher[rows]
            if tau != 1:
                s, t = s / tau, t / tau
            p_s, p_t = s.softmax(1), t.softmax(1)
            # log p = x - logsumexp, and the largest p gives that without another exponential
            normalizer = (s.amax(1, True) - p_s.amax(1, True).log()) - (
                t.amax(1, True) - p_t.amax(1, True).log()
            )
            log_ratio = (t - s).add_(normalizer)
            terms.append(torch.dot(p_t.flatten(), log_ratio.flatten()))
            torch.sub(p_s, p_t, out=difference[rows])
        ctx.save_for_backward(difference)
        ctx.tau = tau
        return torch.stack(terms).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        (difference,) = ctx.saved_tensors
        return difference * (grad / ctx.tau), None, None
