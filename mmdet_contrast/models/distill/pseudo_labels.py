"""A teacher's confident detections as labels."""

from typing import Dict, Sequence

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData


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

    def test_cfg(self, cfg: ConfigDict) -> ConfigDict:
        """Return the settings by which the teacher detects.

        Hard suppression removes a box for the sake of a surer one alone, so boxes that would be
        left out afterwards need not enter it: that is most of them, and of its time.

        Args:
            cfg (ConfigDict): ``test_cfg`` of the teacher's head.

        Returns:
            ConfigDict: The same with a higher ``score_thr`` where that changes nothing.
        """
        if cfg.get('nms', {}).get('type', 'nms') != 'nms':
            return cfg
        return ConfigDict(cfg, score_thr=max(cfg.get('score_thr', 0), self.score_thr))

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
            known = [label in student_class for label in found.labels.tolist()]
            keep = found.scores >= self.score_thr
            found = found[keep & torch.tensor(known, dtype=torch.bool, device=keep.device)]
            boxes = get_box_tensor(sample.gt_instances.bboxes)
            if len(boxes) and len(found):
                overlap = bbox_overlaps(found.bboxes, boxes).amax(dim=1)
                found = found[overlap <= self.iou_thr]
            labels = sample.gt_instances.labels
            added = labels.new_tensor([student_class[label] for label in found.labels.tolist()])
            sample = sample.clone()
            sample.gt_instances = InstanceData(
                bboxes=torch.cat((boxes, found.bboxes.to(boxes))),
                labels=torch.cat((labels, added)),
            )
            extended.append(sample)
        return extended
