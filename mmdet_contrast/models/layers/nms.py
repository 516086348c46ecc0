"""Non-maximum suppression that a ``test_cfg`` can name beside mmcv's own."""

from importlib import import_module
from typing import Any, Tuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from mmdet_contrast.compat import extend_batched_nms

# Boxes of a block: its matrices stay in the cache, and memory grows with the number of boxes
# instead of its square.
_BLOCK = 256


def pairwise_diou(boxes: Tensor, others: Tensor) -> Tensor:
    r"""Compute the distance-IoU of all pairs (arXiv 1911.08287, equations 5 to 7).

    .. math::
        \mathrm{DIoU} = \mathrm{IoU} - \rho^2 / c^2

    with the distance :math:`\rho` of the centres and the diagonal :math:`c` of the smallest box
    around both.

    Args:
        boxes (Tensor): (A, 4) float, (x1, y1, x2, y2).
        others (Tensor): (B, 4) float.

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
    return bbox_overlaps(boxes, others) - distance / (4 * diagonal.clamp(min=1e-6))


@torch.no_grad()
def diou_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_num: int = -1
) -> Tuple[Tensor, Tensor]:
    r"""Suppress a box only if a better one overlaps it *and* has its centre nearby.

    Greedy suppression with DIoU in place of IoU (arXiv 1911.08287, section 3.3): objects whose
    boxes overlap but whose centres lie apart survive each other. In order of falling score (ties:
    in the given order), box :math:`j` is kept if

    .. math::
        k_j = \neg \exists\, i < j : k_i \wedge (\mathrm{DIoU}_{ij} > t)

    which is evaluated for a whole block until it no longer changes (Cluster-NMS, arXiv
    2005.03572): as many rounds as the longest chain of suppressions.

    Args:
        boxes (Tensor): (N, 4) float, (x1, y1, x2, y2); mmcv's ``batched_nms`` shifts those of
            different classes apart.
        scores (Tensor): (N,) float.
        iou_threshold (float): DIoU above which the box of the lower score is removed, in [0, 1].
        max_num (int): Largest number of boxes kept; -1 for no limit.

    Returns:
        tuple[Tensor, Tensor]: (K, 5) kept boxes and scores by falling score, and (K,) indices.

    Examples:
        In a config of any detector::

            model = dict(test_cfg=dict(nms=dict(
                _delete_=True, type='diou_nms', iou_threshold=0.6, class_agnostic=False)))
    """
    exact = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    order = scores.sort(descending=True, stable=True).indices
    kept = order[:0]
    for chunk in order.split(_BLOCK):
        # First the boxes kept in earlier blocks, all of which come before these.
        for part in kept.split(_BLOCK):
            hits = pairwise_diou(exact[part], exact[chunk]) > iou_threshold
            chunk = chunk[~hits.any(0)]
        hits = (pairwise_diou(exact[chunk], exact[chunk]) > iou_threshold).triu_(1)
        alive, updated = None, torch.ones_like(chunk, dtype=torch.bool)
        while alive is None or not torch.equal(updated, alive):
            alive = updated
            updated = ~(hits & alive[:, None]).any(0)
        kept = torch.cat((kept, chunk[alive]))
    if max_num > 0:
        kept = kept[:max_num]
    return torch.cat((boxes[kept], scores[kept, None]), dim=1), kept


@torch.no_grad()
def average_clusters(
    boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, iou_threshold: float
) -> Tensor:
    r"""Compute the score-weighted means of the boxes that ordinary NMS kept and removed.

    Weighted NMS (Ning et al., "Inception Single Shot MultiBox Detector for object detection",
    ICMEW 2017): which boxes are kept, and their scores, are those of ordinary greedy suppression; a
    kept box :math:`m` becomes

    .. math::
        \hat b_m = \sum_{i \in C_m} s_i b_i \Big/ \sum_{i \in C_m} s_i

    where the cluster :math:`C_m` holds :math:`m` and the boxes that it removed: of its label, with
    an IoU above the threshold, and not removed by a kept box of a higher score. A cluster of zero
    scores keeps the box as it is.

    Args:
        boxes (Tensor): (N, 4) float, (x1, y1, x2, y2).
        scores (Tensor): (N,) float, not negative.
        labels (Tensor): (N,) integers.
        keep (Tensor): (K,) indices of the kept boxes, by falling score.
        iou_threshold (float): IoU above which the box of the lower score was removed.

    Returns:
        Tensor: (K, 4) boxes.

    Examples:
        In a config of any detector::

            model = dict(test_cfg=dict(nms=dict(
                _delete_=True, type='weighted_nms', iou_threshold=0.6, class_agnostic=False)))
    """
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    exact, weights = boxes.to(dtype), scores.to(dtype)
    ranks = torch.arange(len(keep), device=keep.device)
    total, moved = weights[keep].clone(), torch.zeros_like(exact[keep])
    removed = torch.ones_like(labels, dtype=torch.bool)
    removed[keep] = False
    for chunk in removed.nonzero()[:, 0].split(_BLOCK):
        hits = bbox_overlaps(exact[keep], exact[chunk]) > iou_threshold
        hits &= labels[keep, None] == labels[chunk]
        # of the kept boxes that overlap it, the first one removed it
        owner = ranks[:, None].where(hits, ranks.new_tensor(len(keep))).amin(0)
        chunk, owner = chunk[owner < len(keep)], owner[owner < len(keep)]
        # Shifts from the kept box, not coordinates: a box alone in its cluster stays as it is.
        shifts = (exact[chunk] - exact[keep][owner]) * weights[chunk, None]
        moved.index_add_(0, owner, shifts)
        total.index_add_(0, owner, weights[chunk])
    moved = torch.where(total[:, None] > 0, moved / total[:, None], torch.zeros_like(moved))
    return (exact[keep] + moved).to(boxes.dtype)


# mmcv looks the type of NMS up among the names of its module `mmcv.ops.nms`. By name, because a
# function hides the module from the import statement.
_mmcv_nms: Any = import_module('mmcv.ops.nms')
_mmcv_nms.diou_nms = diou_nms
extend_batched_nms('weighted_nms', average_clusters)
