"""Non-maximum suppression that averages what it suppresses."""

from typing import Tuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from .nms_greedy import greedy_suppression
from .nms_registry import NMS_OPS, check_threshold


@NMS_OPS.register_module()
def weighted_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float
) -> Tuple[Tensor, Tensor]:
    r"""Replace every kept box by the score-weighted mean of its cluster (weighted NMS).

    As in Ning et al., "Inception Single Shot MultiBox Detector for object detection" (ICMEW 2017):
    which boxes are kept, and their scores, are those of ordinary greedy suppression; a kept box
    :math:`m` becomes

    .. math::
        \hat b_m = \sum_{i \in C_m} s_i b_i \Big/ \sum_{i \in C_m} s_i

    where the cluster :math:`C_m` holds :math:`m` and the boxes that it removed: of its label, with
    an IoU above the threshold, and not removed by a kept box of a higher score. A cluster of zero
    scores keeps the box as it is.

    Args:
        boxes (Tensor): (N, 4) float, (x1, y1, x2, y2).
        scores (Tensor): (N,) float, not negative.
        labels (Tensor): (N,) integers; boxes of different labels do not meet.
        iou_threshold (float): IoU above which the box of the lower score is removed, in [0, 1].

    Returns:
        tuple[Tensor, Tensor]: (K, 5) averaged boxes and unchanged scores by falling score, and
        (K,) indices of the kept boxes.

    Raises:
        ValueError: If the threshold is out of range.

    Example:
        In a config of any detector::

            model = dict(test_cfg=dict(nms=dict(
                _delete_=True, type='weighted_nms', iou_threshold=0.6, class_agnostic=False)))
    """
    check_threshold('weighted_nms', iou_threshold)
    keep, owners = greedy_suppression(boxes, scores, labels, iou_threshold, bbox_overlaps)
    # Shifts from the kept box, not coordinates: a box alone in its cluster stays exactly itself.
    shifts = (boxes - boxes[keep][owners]) * scores[:, None]
    weights = scores.new_zeros(len(keep)).index_add_(0, owners, scores)
    moved = boxes.new_zeros(len(keep), 4).index_add_(0, owners, shifts)
    moved = torch.where(weights[:, None] > 0, moved / weights[:, None], torch.zeros_like(moved))
    return torch.cat((boxes[keep] + moved, scores[keep, None]), dim=1), keep
