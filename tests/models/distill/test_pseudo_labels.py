import pytest
import torch
from mmdet.models.dense_heads import RetinaHead
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


def make_head(num_classes=3, **test_cfg):
    torch.manual_seed(0)
    cfg = dict(score_thr=0.001, nms_pre=300, min_bbox_size=0, max_per_img=4)
    return RetinaHead(
        num_classes=num_classes,
        in_channels=4,
        feat_channels=4,
        stacked_convs=1,
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=2,
            scales_per_octave=2,
            ratios=[1.0],
            strides=[8, 16],
        ),
        test_cfg=ConfigDict(cfg, **test_cfg),
    )


@pytest.mark.parametrize(
    'nms',
    [
        dict(type='nms', iou_threshold=0.5),
        dict(iou_threshold=0.7),
        dict(type='nms', iou_threshold=0.3, class_agnostic=True),
        dict(type='nms', iou_threshold=0.5, max_num=2),
        dict(type='soft_nms', iou_threshold=0.5),
        dict(type='diou_nms', iou_threshold=0.5),
    ],
)
def test_detections_are_those_of_the_head_that_are_confident(nms):
    head = make_head(nms=nms)
    metas = [dict(img_shape=(64, 64))] * 3
    maps = [torch.randn(3, 2 * 3, size, size) for size in (8, 4)]
    # nothing to be seen in the second image
    for level in maps:
        level[1] = -9.0
    outputs = maps, [0.5 * torch.randn(3, 2 * 4, size, size) for size in (8, 4)]
    found = PseudoLabels(0.8).detect(head, outputs, metas)
    expected = head.predict_by_feat(*outputs, batch_img_metas=metas, rescale=False)
    kept = [len(each) for each in expected]
    assert kept[0] == (2 if 'max_num' in nms else 4) and kept[1] <= 4
    for ours, theirs in zip(found, expected):
        theirs, ours = theirs[theirs.scores >= 0.8], ours[ours.scores >= 0.8]
        for name in ('bboxes', 'scores', 'labels'):
            assert torch.equal(ours[name], theirs[name])
    assert sum(len(each) for each in found) > 0


def test_boxes_of_half_precision_are_decoded_and_suppressed_in_float32():
    head = make_head(nms=dict(type='nms', iou_threshold=0.5))
    metas = [dict(img_shape=(64, 64))] * 2
    maps = [torch.randn(2, 6, size, size).bfloat16() for size in (8, 4)]
    boxes = [torch.randn(2, 8, size, size).bfloat16() for size in (8, 4)]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = PseudoLabels(0.8).detect(head, (maps, boxes), metas)
    exact = [m.float() for m in maps], [b.float() for b in boxes]
    expected = PseudoLabels(0.8).detect(head, exact, metas)
    assert sum(len(each) for each in found) > 0
    for ours, theirs in zip(found, expected):
        assert ours.bboxes.dtype == torch.float32
        assert torch.equal(ours.bboxes, theirs.bboxes)
