import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet_contrast.models.distill import PseudoLabels


def make_sample(boxes, labels):
    sample = DetDataSample(metainfo=dict(img_shape=(100, 100)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    return sample


def make_detections(boxes, scores, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float),
        labels=torch.tensor(labels, dtype=torch.long),
    )


DETECTIONS = make_detections(
    [[0, 0, 10, 10], [50, 50, 60, 60], [70, 70, 90, 90], [20, 20, 30, 30]],
    [0.9, 0.4, 0.8, 0.7],
    [0, 0, 1, 2],
)


def test_confident_known_and_not_overlapping():
    sample = make_sample([[1, 1, 10, 10]], [5])
    (out,) = PseudoLabels(0.5, 0.5).extend([sample], [DETECTIONS], {0: 3, 1: 7})
    # the first overlaps the ground truth, the second is not confident, the last is unknown
    assert out.gt_instances.bboxes.tolist() == [[1, 1, 10, 10], [70, 70, 90, 90]]
    assert out.gt_instances.labels.tolist() == [5, 7]
    assert len(sample.gt_instances) == 1


def test_image_without_ground_truth():
    (out,) = PseudoLabels(0.3, 0.5).extend([make_sample([], [])], [DETECTIONS], {0: 3})
    assert out.gt_instances.labels.tolist() == [3, 3]


def test_no_detection():
    empty = make_detections([], [], [])
    (out,) = PseudoLabels().extend([make_sample([[1, 1, 9, 9]], [2])], [empty], {0: 3})
    assert out.gt_instances.labels.tolist() == [2]


def test_wrong_thresholds_are_refused():
    with pytest.raises(ValueError, match='score_thr=2'):
        PseudoLabels(score_thr=2)


def test_the_teacher_need_not_look_at_what_is_left_out():
    cfg = ConfigDict(score_thr=0.001, nms=dict(type='nms', iou_threshold=0.7), max_per_img=300)
    raised = PseudoLabels(0.4).test_cfg(cfg)
    assert raised == dict(cfg, score_thr=0.4) and cfg.score_thr == 0.001
    assert PseudoLabels(0.0).test_cfg(cfg).score_thr == 0.001
    # a box that soft suppression keeps depends on those below the threshold, or they on it
    soft = ConfigDict(score_thr=0.001, nms=dict(type='soft_nms', iou_threshold=0.7))
    assert PseudoLabels(0.4).test_cfg(soft) == soft
