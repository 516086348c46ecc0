"""What the divergences of class logits and of boxes' sides share: their call and the mean."""

from typing import List, Optional, Sequence, Union

import torch
from torch import Tensor, nn

Levels = Union[Tensor, Sequence[Tensor]]


class LocationDivergence(nn.Module):
    """Base of the divergences whose mean over the locations of all levels is the loss.

    Args:
        tau (float): Temperature, > 0.
        loss_weight (float): Factor of the result.
    """

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(
        self,
        student: Levels,
        teacher: Levels,
        weight: Optional[Levels] = None,
        avg_factor: Optional[Tensor] = None,
    ) -> Tensor:
        """Compute the mean divergence of a location, times ``tau`` squared.

        Args:
            student (Tensor | Sequence[Tensor]): (N, C, H, W) logits, (N, A, C) or (L, C), or a list
                of such, one for each level. Heads with several anchors at a position: reshape to
                (L, C) first.
            teacher (Tensor | Sequence[Tensor]): Likewise; gets no gradient.
            weight (Tensor | Sequence[Tensor], optional): Weights >= 0 of the locations, (N, H, W),
                (N, A) or (L,), in a list where the logits are; gets no gradient.
            avg_factor (Tensor, optional): Scalar that the sum is divided by, in place of the number
                of locations.

        Returns:
            Tensor: Scalar in float32 or float64; 0 and connected to the student where there is no
            location or no weight.

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
                values = self.divergence(s.to(dtype), t.detach().to(dtype))
            count += values.numel()
            if w is not None:
                # of another shape they would be broadcast
                values = values * w.detach().to(values).view_as(values)
            totals.append(values.sum())
        mean = torch.stack(totals).sum() / (max(count, 1) if avg_factor is None else avg_factor)
        return self.loss_weight * self.tau**2 * mean

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the divergence of each location: the shape of the level without its channels."""
        raise NotImplementedError


def channel_axis(logits: Tensor) -> int:
    """Return the axis of the channels of a level."""
    return 1 if logits.dim() == 4 else logits.dim() - 1


def _levels(given: Levels) -> List[Tensor]:
    return [given] if isinstance(given, Tensor) else list(given)
