"""A teacher's confident detections as labels."""

from copy import copy
from inspect import signature
from typing import Any, Dict, List, Sequence

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor


class PseudoLabels:
    """Add a teacher's confident detections to the ground truths of images.

    For images that annotate new classes only: objects of the old ones would be trained as
    background otherwise.

    Args:
        score_thr (float): Detections with lower scores are left out.
        iou_thr (float): So are those that overlap a ground truth of any class by more.
    """

    def __init__(self, score_thr: float = 0.5, iou_thr: float = 0.5) -> None:
        self.score_thr = score_thr
        self.iou_thr = iou_thr

    def detect(
        self, head: BaseDenseHead, outputs: Sequence[Any], metas: Sequence[dict]
    ) -> List[InstanceData]:
        """Decode what a head gives to detections.

        Hard and soft suppression lower a score for the sake of a surer box alone, so boxes that
        would be left out afterwards need not enter it: that is most of them.

        Args:
            head (BaseDenseHead): The teacher's.
            outputs (Sequence): What its ``forward`` returned for N images; taken in float32.
            metas (Sequence[dict]): ``img_shape`` of each image.

        Returns:
            list[InstanceData]: ``bboxes``, ``scores`` and ``labels`` of each image, in the pixels
            of the input, the surest first.
        """
        options = dict(batch_img_metas=metas, rescale=False)
        if 'cfg' in signature(head.predict_by_feat).parameters:
            score_thr = max(head.test_cfg.get('score_thr', 0), self.score_thr)
            options['cfg'] = ConfigDict(head.test_cfg, score_thr=score_thr)
        # in the half precision of autocast, boxes would be pixels off
        with torch.autocast(next(head.parameters()).device.type, enabled=False):
            return head.predict_by_feat(*_to_float(outputs), **options)

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


def _to_float(outputs: Any) -> Any:
    """Return maps in float32, in the lists in which they are given."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return [_to_float(x) for x in outputs] if isinstance(outputs, (list, tuple)) else outputs
