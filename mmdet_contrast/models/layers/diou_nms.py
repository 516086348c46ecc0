"""Non-maximum suppression by distance-IoU."""

from typing import Tuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from .nms_greedy import greedy_suppression
from .nms_registry import NMS_OPS, check_threshold


def pairwise_diou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    r"""Compute the distance-IoU of all pairs (arXiv 1911.08287, equations 5 to 7).

    .. math::
        \mathrm{DIoU} = \mathrm{IoU} - \rho^2 / c^2

    with the distance :math:`\rho` of the centres and the diagonal :math:`c` of the smallest box
    around both.

    Args:
        boxes (Tensor): (A, 4) float, (x1, y1, x2, y2).
        others (Tensor): (B, 4) float.
        eps (float): Lower bound of :math:`c^2`. Defaults to 1e-6.

    Returns:
        Tensor: (A, B) values in (-1, 1].
    """
    diagonal = distance = boxes.new_zeros(1)
    # One axis after the other: a sum over a last dimension of 2 takes most of the time otherwise.
    for low, high in ((0, 2), (1, 3)):
        least = torch.minimum(boxes[:, low, None], others[:, low])
        most = torch.maximum(boxes[:, high, None], others[:, high])
        diagonal = diagonal + (most - least).square()
        centres = boxes[:, low] + boxes[:, high], others[:, low] + others[:, high]
        distance = distance + (centres[0][:, None] - centres[1]).square()
    # The sums of corners are twice the centres.
    return bbox_overlaps(boxes, others) - distance / (4 * diagonal.clamp(min=eps))


@NMS_OPS.register_module()
def diou_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float
) -> Tuple[Tensor, Tensor]:
    """Suppress a box only if a better one overlaps it *and* has its centre nearby.

    Greedy suppression with DIoU in place of IoU (arXiv 1911.08287, section 3.3): objects whose
    boxes overlap but whose centres lie apart survive each other.

    Args:
        boxes (Tensor): (N, 4) float, (x1, y1, x2, y2).
        scores (Tensor): (N,) float.
        labels (Tensor): (N,) integers; boxes of different labels do not meet.
        iou_threshold (float): DIoU above which the box of the lower score is removed, in [0, 1].

    Returns:
        tuple[Tensor, Tensor]: (K, 5) kept boxes and scores by falling score, and (K,) indices.

    Raises:
        ValueError: If the threshold is out of range.

    Example:
        In a config of any detector::

            model = dict(test_cfg=dict(nms=dict(
                _delete_=True, type='diou_nms', iou_threshold=0.6, class_agnostic=False)))
    """
    check_threshold('diou_nms', iou_threshold)
    keep, _ = greedy_suppression(boxes, scores, labels, iou_threshold, pairwise_diou)
    return torch.cat((boxes[keep], scores[keep, None]), dim=1), keep
