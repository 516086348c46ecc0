"""Jittered boxes and how much a pair of them counts."""

from typing import List

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from torch import Tensor

# An object counts no less and no more than this, however far from the mean its area is.
AREA_RANGE = (0.1, 10.0)


def jitter_rois(rois: Tensor, share: float, batch_data_samples: List[DetDataSample]) -> Tensor:
    r"""Move the corners of boxes at random, each coordinate by itself.

    .. math::
        x' = x + u w, \quad y' = y + v h, \qquad u, v \sim U(-\text{share}, \text{share})

    independently for both corners, within the image. The boxes of detectors are never exact:
    contrasting shifted boxes asks for features that bear it (the box sampling of FSCE,
    arXiv 2103.05950, and SoCo, arXiv 2106.02637). Uses PyTorch's generator.

    Args:
        rois (Tensor): (M, 5) position in the batch and box ``(x1, y1, x2, y2)`` in pixels.
        share (float): Largest shift as a share of the side, in [0, 0.5): corners cannot swap.
        batch_data_samples (list[DetDataSample]): The samples of the batch; the boxes stay within
            their ``img_shape``.

    Returns:
        Tensor: (M, 5) regions; ``rois`` itself for ``share=0``.
    """
    if share == 0 or len(rois) == 0:
        return rois
    boxes = rois[:, 1:]
    sides = boxes[:, 2:] - boxes[:, :2]
    moved = boxes + (2 * torch.rand_like(boxes) - 1) * share * sides.repeat(1, 2)
    infinite = (float('inf'), float('inf'))
    shapes = [sample.metainfo.get('img_shape', infinite)[:2] for sample in batch_data_samples]
    limits = rois.new_tensor(shapes).flip(1)[rois[:, 0].long()].repeat(1, 2)
    moved = torch.minimum(moved.clamp(min=0), limits)
    return torch.cat((rois[:, :1], moved), dim=1)


def iou_weights(boxes: Tensor, jittered_query: Tensor, key_boxes: Tensor, jittered_key: Tensor):
    """Weigh each pair by how well its two jittered boxes hold their object.

    Args:
        boxes (Tensor): (M, 4) ground truth in the original.
        jittered_query (Tensor): (M, 4) what is pooled there.
        key_boxes (Tensor): (M, 4) ground truth in the view.
        jittered_key (Tensor): (M, 4) what is pooled there.

    Returns:
        Tensor: (M,) product of the two IoU with the ground truth, in [0, 1].
    """
    query = bbox_overlaps(jittered_query, boxes, is_aligned=True)
    return query * bbox_overlaps(jittered_key, key_boxes, is_aligned=True)


def area_weights(boxes: Tensor) -> Tensor:
    """Weigh each pair by its object's area relative to the mean over the boxes of all ranks.

    Every rank must call it.

    Args:
        boxes (Tensor): (M, 4) ground truth in the original; M may be 0.

    Returns:
        Tensor: (M,) ``area / mean area``, clamped to ``AREA_RANGE``.
    """
    areas = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0)
    total, count = reduce_mean(torch.stack((areas.sum(), areas.new_tensor(float(len(areas))))))
    mean = (total / count.clamp(min=1e-6)).clamp(min=1e-6)
    return (areas / mean).clamp(*AREA_RANGE)
