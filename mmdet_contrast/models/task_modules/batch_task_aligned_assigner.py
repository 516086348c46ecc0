"""Task-aligned assignment of a whole batch."""

from typing import NamedTuple

import torch
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ..losses.complete_iou import complete_iou


class BatchAssignment(NamedTuple):
    """The K points of a batch that have an object, each exactly one."""

    points: Tensor
    """(K,) int64: ``image * A + point``, ascending."""
    objects: Tensor
    """(K,) int64: index into the G objects of the batch."""
    scores: Tensor
    """(K,) float32 in [0, 1]: the target of the classification at the object's class."""


class _Pairs(NamedTuple):
    """The P pairs of an object and a point within it, by object, then point."""

    objects: Tensor
    points: Tensor


@TASK_UTILS.register_module()
class BatchTaskAlignedAssigner:
    """Assign the points of all images of a batch to objects at once (TOOD, arXiv 2108.07755).

    The metric of a point within an object's box is ``score**alpha * IoU**beta``, of its predicted
    score for the object's class and the IoU of its predicted box. An object gets the ``topk``
    points of the highest metric; a point that several objects want goes to the one with which its
    box overlaps most. The target score is the metric, scaled so that an object's best point gets
    the highest IoU among its points. As in YOLOv8: CIoU, negative values as 0, and points outside
    the box are no candidates, so that an object that holds no point gets none.

    MMDetection's ``TaskAlignedAssigner`` works image by image with a matrix of all objects and all
    points; here only pairs of an object and a point within its box are ever looked at, without
    padding images to the same number of objects.

    Args:
        topk (int): Points of an object.
        alpha (float): Exponent of the score.
        beta (float): Exponent of the IoU.
        eps (float): Points nearer to the border than this are outside (pixels); added to the
            denominator of the target.
    """

    def __init__(
        self, topk: int = 10, alpha: float = 0.5, beta: float = 6.0, eps: float = 1e-9
    ) -> None:
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.eps = eps

    @torch.no_grad()
    def assign(
        self,
        cls_scores: Tensor,
        bboxes: Tensor,
        points: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        gt_images: Tensor,
    ) -> BatchAssignment:
        """Assign.

        Args:
            cls_scores (Tensor): (B, num_classes, A) scores after the sigmoid.
            bboxes (Tensor): (B, A, 4) predicted boxes ``(x1, y1, x2, y2)`` in pixels.
            points (Tensor): (A, 2) points ``(x, y)`` in pixels, the same for every image.
            gt_bboxes (Tensor): (G, 4) boxes of the objects of all images in pixels.
            gt_labels (Tensor): (G,) classes.
            gt_images (Tensor): (G,) index of the object's image in the batch.

        Returns:
            BatchAssignment: Nothing for no objects.
        """
        pairs = self.find_pairs(points, gt_bboxes)
        images, labels = gt_images[pairs.objects], gt_labels[pairs.objects]
        return self.assign_pairs(
            cls_scores[images, labels, pairs.points].float(),
            bboxes[images, pairs.points].float(),
            pairs,
            len(points),
            gt_bboxes,
            gt_images,
        )

    @torch.no_grad()
    def find_pairs(self, points: Tensor, gt_bboxes: Tensor) -> _Pairs:
        """Find the points within each object's box, borders excluded.

        Args:
            points (Tensor): (A, 2) in pixels.
            gt_bboxes (Tensor): (G, 4) in pixels.

        Returns:
            _Pairs: (P,) indices of objects, ascending, and of points.
        """
        # axis by axis, in place: of G x A cells there may be many
        inside = points[:, 0] - gt_bboxes[:, 0:1] > self.eps
        inside &= points[:, 1] - gt_bboxes[:, 1:2] > self.eps
        inside &= gt_bboxes[:, 2:3] - points[:, 0] > self.eps
        inside &= gt_bboxes[:, 3:4] - points[:, 1] > self.eps
        return _Pairs(*inside.nonzero().unbind(1))

    @torch.no_grad()
    def assign_pairs(
        self,
        scores: Tensor,
        bboxes: Tensor,
        pairs: _Pairs,
        num_points: int,
        gt_bboxes: Tensor,
        gt_images: Tensor,
    ) -> BatchAssignment:
        """Assign, given the predictions at the pairs alone.

        Args:
            scores (Tensor): (P,) float32 scores of the objects' classes after the sigmoid.
            bboxes (Tensor): (P, 4) float32 predicted boxes in pixels.
            pairs (_Pairs): What :meth:`find_pairs` found.
            num_points (int): Number A of points of an image.
            gt_bboxes (Tensor): (G, 4) boxes in pixels.
            gt_images (Tensor): (G,) images.

        Returns:
            BatchAssignment: The points that have an object.
        """
        objects = pairs.objects
        ious = complete_iou(gt_bboxes[objects].float(), bboxes).clamp_(min=0)
        metric = scores**self.alpha * ious**self.beta
        chosen = self._top_pairs(metric, objects, len(gt_bboxes))
        cells = gt_images[objects] * num_points + pairs.points
        chosen = self._resolve(chosen, cells, ious)

        best = metric.new_zeros(2, len(gt_bboxes))
        owner = objects[chosen]
        metric, ious = metric[chosen], ious[chosen]
        best[0].scatter_reduce_(0, owner, metric, 'amax')
        best[1].scatter_reduce_(0, owner, ious, 'amax')
        target = metric * best[1][owner] / (best[0][owner] + self.eps)
        return BatchAssignment(cells[chosen], owner, target)

    def _top_pairs(self, metric: Tensor, objects: Tensor, count: int) -> Tensor:
        """Return the indices of each object's pairs of the highest positive metrics."""
        if len(metric) == 0:
            return objects.new_zeros(0)
        number = torch.bincount(objects, minlength=count)
        start = number.cumsum(0) - number
        width = max(int(number.max()), self.topk)
        table = metric.new_zeros(count, width)
        column = torch.arange(len(objects), device=objects.device) - start[objects]
        table[objects, column] = metric
        value, column = table.topk(self.topk, dim=1)
        # a metric of 0 would be a positive with a target of 0
        return (start[:, None] + column)[value > 0]

    @staticmethod
    def _resolve(chosen: Tensor, cells: Tensor, ious: Tensor) -> Tensor:
        """Leave each point to one object, the one its box overlaps most; ascending by point."""
        points, number = torch.unique(cells[chosen], return_counts=True)
        wanted = points[number > 1]
        contested = torch.isin(cells, wanted).nonzero()[:, 0]
        slot = torch.searchsorted(wanted, cells[contested])
        best = ious.new_full((len(wanted),), -1).scatter_reduce_(0, slot, ious[contested], 'amax')
        winners = contested[ious[contested] == best[slot]]
        # among equals the first object: pairs are sorted by object
        first = winners.new_full((len(wanted),), len(cells))
        first.scatter_reduce_(0, torch.searchsorted(wanted, cells[winners]), winners, 'amin')
        sole = chosen[~torch.isin(cells[chosen], wanted)]
        chosen = torch.cat((sole, first))
        return chosen[cells[chosen].argsort()]
