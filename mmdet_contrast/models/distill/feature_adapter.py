"""Adapter from the student's channels to the teacher's."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureAdapter(nn.Module):
    """Learnt 1x1 convolution that is left out of every ``state_dict``.

    It is trained with the student, and not needed by it: checkpoints hold the student alone.
    ``DistillationHook`` keeps :meth:`weights` beside them, to resume with.

    Args:
        in_channels (int): Channels of the student's features.
        out_channels (int): Channels of the teacher's.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x (Tensor): (N, in_channels, H, W).

        Returns:
            Tensor: (N, out_channels, H, W).
        """
        return F.conv2d(x, self.weight, self.bias)

    def weights(self) -> dict:
        """Return copies of the parameters, on the CPU.

        Returns:
            dict[str, Tensor]: By name.
        """
        return {name: p.detach().cpu().clone() for name, p in self.named_parameters()}

    def load_weights(self, weights: dict) -> None:
        """Copy parameters in.

        Args:
            weights (dict[str, Tensor]): What :meth:`weights` returned.
        """
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(weights[name])

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        pass
