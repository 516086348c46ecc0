"""Boxes on the background."""

from typing import List, Sequence, Tuple

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor


def occupied_boxes(sample: DetDataSample) -> Tensor:
    """Return what is no background in an image.

    Args:
        sample (DetDataSample): With ``gt_instances`` and, where there are any,
            ``ignored_instances``.

    Returns:
        Tensor: (G, 4) boxes of both.
    """
    boxes = [get_box_tensor(sample.gt_instances.bboxes)]
    ignored = sample.get('ignored_instances', None)
    if ignored is not None and 'bboxes' in ignored:
        boxes.append(get_box_tensor(ignored.bboxes))
    return torch.cat(boxes)


def sample_background_boxes(
    occupied: Sequence[Tensor],
    image_shapes: Sequence[Tuple[int, int]],
    num_boxes: int,
    num_candidates: int = 16,
    min_size: float = 8.0,
) -> List[Tensor]:
    """Draw boxes that touch no object, for all images of a batch at once.

    Sides are drawn log-uniformly between a quarter of the image's shortest and its longest
    object side (a sixteenth to a quarter of the image where there is no object), so that size
    does not tell background from objects.

    Args:
        occupied (Sequence[Tensor]): For each of the N images, (G, 4) boxes ``(x1, y1, x2, y2)``
            in pixels that must not be touched: objects, ignored and crowd boxes.
        image_shapes (Sequence[tuple[int, int]]): ``(height, width)`` of each image.
        num_boxes (int): Largest number of boxes for an image.
        num_candidates (int): Draws made for each box that is wanted; what is left after leaving
            out those that touch something may be fewer than ``num_boxes``, or none where
            objects fill the image.
        min_size (float): Smallest side in pixels.

    Returns:
        list[Tensor]: For each image (k, 4) boxes with ``0 <= k <= num_boxes``.
    """
    if len(occupied) == 0:
        return []
    device, num_images = occupied[0].device, len(occupied)
    most = max(1, max(len(boxes) for boxes in occupied))
    # Padding boxes lie outside of every image, where no candidate touches them.
    padded = torch.full((num_images, most, 4), -2.0, device=device)
    padded[..., 2:] = -1.0
    shapes = torch.tensor([shape[:2] for shape in image_shapes], dtype=torch.float, device=device)
    extent = shapes.flip(1)[:, None]  # (N, 1, 2): width, height
    shortest, longest = extent / 16, extent / 4
    for i, boxes in enumerate(occupied):
        if len(boxes):
            padded[i, : len(boxes)] = boxes.float()
            sides = boxes[:, 2:].float() - boxes[:, :2].float()
            shortest[i, 0] = sides.amin(dim=0) / 4
            longest[i, 0] = sides.amax(dim=0)
    shortest = torch.minimum(shortest.clamp(min=min_size), extent)
    longest = torch.minimum(torch.maximum(longest, shortest), extent)

    draws = torch.rand(2, num_images, num_boxes * num_candidates, 2, device=device)
    sides = shortest * (longest / shortest) ** draws[0]
    top_left = draws[1] * (extent - sides)
    candidates = torch.cat((top_left, top_left + sides), dim=-1)

    apart = (candidates[:, :, None, :2] > padded[:, None, :, 2:]) | (
        candidates[:, :, None, 2:] < padded[:, None, :, :2]
    )
    free = apart.any(dim=-1).all(dim=-1)
    return [boxes[keep][:num_boxes] for boxes, keep in zip(candidates, free)]
