"""Regions of the background."""

from typing import Sequence, Tuple

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

# Draws for each box that is wanted: what is left of them touches nothing.
_CANDIDATES = 16
# Pixels.
_MIN_SIZE = 8.0


def sample_background(
    samples: Sequence[DetDataSample], positions: Sequence[int], occupied: Tensor, num_boxes: int
) -> Tuple[Tensor, Tensor]:
    """Draw regions that touch no object, for all images of a batch at once.

    Sides are drawn log-uniformly between a quarter of the shortest and the longest object side of
    the batch (a sixteenth to a quarter of the image where there is no object), so that size does
    not tell background from objects. Uses PyTorch's generator.

    Args:
        samples (Sequence[DetDataSample]): The N images.
        positions (Sequence[int]): Position of each in the batch.
        occupied (Tensor): (G, 5) regions of their objects.
        num_boxes (int): Regions drawn for each image.

    Returns:
        tuple[Tensor, Tensor]: (N * num_boxes, 5) regions ``(position in the batch, x1, y1, x2,
        y2)``; and (N * num_boxes,) bool, False for those that touch an object all the same, because
        objects fill their image.
    """
    frames = torch.tensor([[float(i), *s.img_shape[1::-1]] for i, s in zip(positions, samples)])
    frames = frames.to(occupied.device, non_blocking=True)[:, None]
    position, extent = frames.split((1, 2), dim=2)  # (N, 1, 1), and (N, 1, 2): width, height
    if len(occupied):
        shortest, longest = torch.aminmax(occupied[:, 3:] - occupied[:, 1:3], dim=0)
        shortest = shortest / 4
    else:
        shortest, longest = extent / 16, extent / 4
    # 'fmin' and 'fmax' leave out what is no number
    shortest = torch.fmin(shortest.clamp(min=_MIN_SIZE), extent)
    longest = torch.fmin(torch.fmax(longest, shortest), extent)

    count = num_boxes * _CANDIDATES
    draws = torch.rand(2, len(samples), count, 2, device=occupied.device)
    sides = shortest * (longest / shortest) ** draws[0]
    top_left = draws[1] * (extent - sides)
    rois = torch.cat((position.expand(-1, count, -1), top_left, top_left + sides), dim=2)

    low, high = rois[:, :, None, 1:3], rois[:, :, None, 3:]
    touches = ((low <= occupied[:, 3:]) & (high >= occupied[:, 1:3])).all(dim=3)
    touches = touches & (rois[..., :1] == occupied[:, 0])  # (N, C, G)
    # the free ones first, in the order in which they were drawn
    number, order = touches.sum(dim=2).sort(dim=1, stable=True)
    chosen = order[:, :num_boxes, None].expand(-1, -1, 5)
    return rois.gather(1, chosen).flatten(0, 1), (number[:, :num_boxes] == 0).flatten()
