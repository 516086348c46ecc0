"""A teacher's confident detections as labels."""

from copy import copy
from inspect import signature
from typing import Any, Dict, List, Sequence

import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn


class PseudoLabels:
    """Add a teacher's confident detections to the ground truths of images.

    For images that annotate new classes only: objects of the old ones would be trained as
    background otherwise.

    Args:
        score_thr (float): Detections with lower scores are left out.
        iou_thr (float): So are those that overlap a ground truth of any class by more.

    Raises:
        ValueError: If a threshold is not from 0 to 1.
    """

    def __init__(self, score_thr: float = 0.5, iou_thr: float = 0.5) -> None:
        if not (0 <= score_thr <= 1 and 0 <= iou_thr <= 1):
            raise ValueError(
                f'pseudo_labels got score_thr={score_thr} and iou_thr={iou_thr}; both expected '
                'from 0 to 1.'
            )
        self.score_thr = score_thr
        self.iou_thr = iou_thr

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Refuse detectors that cannot be taught so.

        Args:
            student (nn.Module): The detector that learns.
            teacher (nn.Module): The detector that labels.

        Raises:
            ValueError: If the teacher has no dense head, or the student contrasts two views.
        """
        if not hasattr(teacher, 'bbox_head'):
            raise ValueError(
                'pseudo_labels need a teacher with a dense bbox_head, which '
                f'{type(teacher).__name__} has not: set pseudo_labels=None.'
            )
        contrast = getattr(getattr(student, 'bbox_head', None), 'contrast', None)
        if contrast is not None and contrast.sampler.needs_views:
            raise ValueError(
                f'pseudo_labels got a student with {type(student.bbox_head).__name__}, which pairs '
                'the boxes of two views by their rows, and labels that are added to each would '
                'move them: set pseudo_labels=None, or '
                "contrast.sampler=dict(type='JitteredBoxes') and no view, or take the head without "
                'contrast.'
            )

    def detect(
        self, head: nn.Module, outputs: Sequence[Any], metas: Sequence[dict]
    ) -> List[InstanceData]:
        """Decode what a head gives to detections.

        Hard suppression removes a box for the sake of a surer one alone, so boxes that would be
        left out afterwards need not enter it: that is most of them. What remains of all images is
        suppressed in one call, each class of each image by itself. Heads with another way of
        suppressing do it themselves.

        Args:
            head (nn.Module): The teacher's dense head, with ``predict_by_feat`` and ``test_cfg``.
            outputs (Sequence): What its ``forward`` returned for N images; taken in float32.
            metas (Sequence[dict]): ``img_shape`` of each image.

        Returns:
            list[InstanceData]: ``bboxes``, ``scores`` and ``labels`` of each image, in the pixels
            of the input, the surest first.
        """
        # in the half precision of autocast, boxes would be pixels off
        outputs = _to_float(outputs)
        with torch.autocast(next(head.parameters()).device.type, enabled=False):
            if not _suppresses_apart(head):
                return head.predict_by_feat(*outputs, batch_img_metas=metas, rescale=False)
            cfg, nms = head.test_cfg, dict(head.test_cfg.nms)
            cfg = ConfigDict(cfg, score_thr=max(cfg.get('score_thr', 0), self.score_thr))
            found = head.predict_by_feat(
                *outputs, batch_img_metas=metas, cfg=cfg, rescale=False, with_nms=False
            )
        boxes = torch.cat([get_box_tensor(each.bboxes) for each in found])
        scores = torch.cat([each.scores for each in found])
        labels = torch.cat([each.labels for each in found])
        counts = torch.tensor([len(each.scores) for each in found], device=labels.device)
        image = torch.arange(len(found), device=labels.device).repeat_interleave(counts)
        if len(boxes):
            apart = (
                image if nms.pop('class_agnostic', False) else image * (labels.max() + 1) + labels
            )
            # boxes are told apart by shifting them: small numbers keep their coordinates exact
            apart = apart.unique(return_inverse=True)[1]
            keep = batched_nms(boxes, scores, apart, nms)[1]
            boxes, scores, labels, image = (x[keep] for x in (boxes, scores, labels, image))
        most = cfg.get('max_per_img', len(boxes))
        chosen = [(image == i).nonzero()[:most, 0] for i in range(len(found))]
        return [InstanceData(bboxes=boxes[i], scores=scores[i], labels=labels[i]) for i in chosen]

    @torch.no_grad()
    def extend(
        self,
        samples: SampleList,
        detections: Sequence[InstanceData],
        student_class: Dict[int, int],
    ) -> SampleList:
        """Return samples with more ground truths; the given ones are not changed.

        Args:
            samples (list[DetDataSample]): Of the batch.
            detections (Sequence[InstanceData]): The teacher's ``bboxes``, ``scores`` and ``labels``
                of each image, in the pixels of the input.
            student_class (dict[int, int]): The student's class of each of the teacher's; others
                are left out.

        Returns:
            list[DetDataSample]: ``gt_instances`` hold ``bboxes`` and ``labels``.
        """
        extended = []
        for sample, found in zip(samples, detections):
            old = sample.gt_instances
            boxes, labels = get_box_tensor(old.bboxes), old.labels
            added = [student_class.get(label, -1) for label in found.labels.tolist()]
            added = labels.new_tensor(added)
            keep = (found.scores >= self.score_thr) & (added >= 0)
            more, added = get_box_tensor(found.bboxes)[keep].to(boxes), added[keep]
            if len(boxes) and len(more):
                keep = bbox_overlaps(more, boxes).amax(dim=1) <= self.iou_thr
                more, added = more[keep], added[keep]
            # clone() would copy the metainfo deeply
            sample = copy(sample)
            sample.gt_instances = InstanceData(
                bboxes=torch.cat((boxes, more)), labels=torch.cat((labels, added))
            )
            extended.append(sample)
        return extended


def _suppresses_apart(head: nn.Module) -> bool:
    """Tell whether a head suppresses as every dense head does, so that it can be left out."""
    nms = head.test_cfg.get('nms')
    return (
        bool(nms)
        and nms.get('type', 'nms') == 'nms'
        and 'max_num' not in nms
        and getattr(type(head), '_bbox_post_process', None) is BaseDenseHead._bbox_post_process
        and 'with_nms' in signature(head.predict_by_feat).parameters
    )


def _to_float(outputs: Any) -> Any:
    """Return maps in float32, in the lists in which they are given."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return [_to_float(x) for x in outputs] if isinstance(outputs, (list, tuple)) else outputs
