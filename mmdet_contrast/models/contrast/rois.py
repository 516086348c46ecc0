"""Boxes of several images as regions of a batch."""

from typing import Sequence

import torch
from torch import Tensor


def batch_rois(boxes: Sequence[Tensor], positions: Sequence[int], device: torch.device) -> Tensor:
    """Join the boxes of images without waiting for the device.

    Args:
        boxes (Sequence[Tensor]): (G_i, 4) boxes of each image in pixels; G_i may be 0.
        positions (Sequence[int]): Position of each image in the batch.
        device (torch.device): Of the result.

    Returns:
        Tensor: (M, 5) regions ``(position in the batch, x1, y1, x2, y2)`` in float32.
    """
    if not boxes:
        return torch.zeros(0, 5, device=device)
    position = [[float(i)] for i, own in zip(positions, boxes) for _ in range(len(own))]
    position = torch.tensor(position).view(-1, 1).to(device, non_blocking=True)
    return torch.cat((position, torch.cat(tuple(boxes)).to(device, torch.float32)), dim=1)
