"""What the divergences of class logits and of boxes' sides share: their call and the mean."""

from typing import Optional

import torch
from torch import Tensor, nn


class LocationDivergence(nn.Module):
    """Base of the divergences whose mean over locations is the loss.

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
        student: Tensor,
        teacher: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[Tensor] = None,
    ) -> Tensor:
        """Compute the mean divergence of a location, times ``tau`` squared.

        Args:
            student (Tensor): (N, C, ...) logits of N images, or of their anchors, at any number of
                locations: (N, C), (N, C, L) or (N, C, H, W).
            teacher (Tensor): Likewise; gets no gradient.
            weight (Tensor, optional): (N, ...) weights >= 0 of the locations; gets no gradient.
            avg_factor (Tensor, optional): Scalar that the sum is divided by, in place of the number
                of locations.

        Returns:
            Tensor: Scalar in float32 or float64; 0 and connected to the student where there is no
            location or no weight.

        Raises:
            ValueError: If student and teacher, or their weights, have other shapes.
        """
        places = (len(student), *student.shape[2:])
        shapes = [tuple(each.shape) for each in (student, teacher)]
        # a single class or location would be broadcast
        if shapes[0] != shapes[1] or (weight is not None and weight.shape != places):
            weights = 'none' if weight is None else tuple(weight.shape)
            raise ValueError(
                f'logits of the student have the shape {shapes[0]}, of the teacher {shapes[1]}, '
                f'weights {weights}: logits of one shape (N, C, ...) expected, weights (N, ...); '
                'where the classes differ, select those that both have.'
            )
        dtype = torch.promote_types(student.dtype, torch.float32)
        with torch.autocast(device_type=student.device.type, enabled=False):
            student, teacher = student.to(dtype), teacher.detach().to(dtype)
            if self.tau != 1:
                student, teacher = student / self.tau, teacher / self.tau
            values = self.divergence(student, teacher)
        if weight is not None:
            values = values * weight.detach().to(values)
        divisor = max(values.numel(), 1) if avg_factor is None else avg_factor
        return values.sum() * (self.loss_weight * self.tau**2 / divisor)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the divergence of each location, (N, ...), of logits over the temperature."""
        raise NotImplementedError
