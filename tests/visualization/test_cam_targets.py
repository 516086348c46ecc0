import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from torch import nn

from mmdet_contrast.visualization.cam_targets import (
    box_target,
    class_logits,
    class_scores,
    class_target,
    decode_boxes,
    head_outputs,
    trace_detections,
)

sys.path.insert(0, str(Path(__file__).parent))
from cam_toys import colour_detector, colour_image, colour_sample, tiny_transformer  # noqa: E402

TEST_CFG = ConfigDict(
    nms_pre=1000,
    min_bbox_size=0,
    score_thr=0.01,
    nms=dict(type='nms', iou_threshold=0.5),
    max_per_img=30,
)
COMMON = dict(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)
ANCHORS = dict(
    anchor_generator=dict(
        type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
        strides=[8, 16],
    )
)  # fmt: skip
HEADS = {
    'retina': dict(
        type='RetinaHead',
        **COMMON,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0], strides=[8, 16],
        ),
    ),
    'retina_softmax': dict(
        type='RetinaHead',
        **COMMON,
        **ANCHORS,
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False),
    ),
    'fcos': dict(
        type='FCOSHead', **COMMON, strides=[8, 16], regress_ranges=((-1, 64), (64, 1e8)),
        norm_cfg=None,
    ),
    'atss': dict(type='ATSSHead', **COMMON, **ANCHORS, norm_cfg=None),
    'gfl': dict(
        type='GFLHead', **COMMON, **ANCHORS, norm_cfg=None, bbox_coder=dict(
            type='DistancePointBBoxCoder'
        ),
    ),
    'yolox': dict(type='YOLOXHead', **COMMON, strides=(8, 16)),
    'yolov8': dict(type='YOLOv8Head', num_classes=3, in_channels=(8, 8), strides=(8, 16)),
}  # fmt: skip


class Detector(nn.Module):
    """Features as images: the head is what is tested."""

    def __init__(self, name):
        super().__init__()
        register_all_modules()
        import mmdet_contrast  # noqa: F401

        self.bbox_head = MODELS.build(dict(HEADS[name], test_cfg=TEST_CFG)).eval()
        self.levels = [torch.randn(1, 8, 8, 12) * 4, torch.randn(1, 8, 4, 6) * 4]
        with torch.no_grad():
            for weight in self.bbox_head.parameters():
                if weight.dim() > 1:
                    weight.normal_(0, 0.15)

    def extract_feat(self, inputs):
        return tuple(self.levels)


def detections_of(detector, outputs, sample):
    found = detector.bbox_head.predict_by_feat(
        *outputs, batch_img_metas=[sample.metainfo], rescale=True
    )[0]
    return found[found.scores.argsort(descending=True)]


@pytest.mark.parametrize('name', HEADS)
def test_detections_are_traced_back(name):
    detector, sample = Detector(name), colour_sample(scale=0.5)
    with torch.no_grad():
        outputs = head_outputs(detector, torch.zeros(1, 3, 64, 96))
        detections = detections_of(detector, outputs, sample)
        assert len(detections) >= 5
        logits = class_logits(detector.bbox_head, outputs)[0]
        boxes = decode_boxes(detector.bbox_head, outputs, sample)
        assert len(boxes) == len(logits)
        ranks = class_scores(detector.bbox_head, outputs)
        priors = trace_detections(boxes, ranks, detections, range(len(detections)))
    # The same box, but for what is cut at the border after decoding
    overlaps = bbox_overlaps(boxes[priors], detections.bboxes, is_aligned=True)
    assert float(overlaps.min()) > 0.999
    own = logits[priors]
    if name == 'retina_softmax':
        scores = own.softmax(-1)
    else:
        scores = own.sigmoid()
    scores = scores[torch.arange(len(own)), detections.labels]
    if name in ('fcos', 'atss', 'yolox'):
        factor = torch.cat([level.flatten() for level in outputs[2]]).sigmoid()[priors]
        scores = scores * factor
    # The score of the detection, exactly: it is that prediction and no neighbour
    torch.testing.assert_close(scores, detections.scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', ['retina', 'fcos', 'gfl', 'yolov8'])
def test_gradient_reaches_the_predicting_place(name):
    detector, sample = Detector(name), colour_sample()
    detector.levels = [level.requires_grad_() for level in detector.levels]
    outputs = head_outputs(detector, torch.zeros(1, 3, 64, 96))
    detections = detections_of(detector, outputs, sample)
    target = box_target(detector, outputs, sample, detections, 0)
    target.score(class_logits(detector.bbox_head, outputs)).sum().backward()
    reached = [level.grad is not None and bool(level.grad.any()) for level in detector.levels]
    assert sum(reached) == 1


def test_class_logits_are_in_the_order_of_priors():
    detector = Detector('retina')
    with torch.no_grad():
        outputs = head_outputs(detector, torch.zeros(1, 3, 64, 96))
    logits = class_logits(detector.bbox_head, outputs)
    assert logits.shape == (1, (8 * 12 + 4 * 6) * 9, 3)
    # second level, row 2, column 5, anchor 4, class 1
    prior = 8 * 12 * 9 + (2 * 6 + 5) * 9 + 4
    assert logits[0, prior, 1] == outputs[0][1][0, 4 * 3 + 1, 2, 5]


def test_class_targets():
    detector, sample = colour_detector(), colour_sample()
    inputs = colour_image((2, 3, 0, 1.0), (5, 9, 0, 0.8), (1, 7, 2, 0.4))
    with torch.no_grad():
        outputs = head_outputs(detector, inputs)
        found = detector.predict(inputs, [sample])[0].pred_instances
    found = found[found.scores >= 0.3]
    red = class_target(detector, outputs, sample, found, 'red')
    assert (red.label, red.text) == (0, '2 x red')
    assert sorted(red.priors.tolist()) == [2 * 12 + 3, 5 * 12 + 9]
    # logits 12 x colour - 6
    logits = class_logits(detector.bbox_head, outputs)
    assert float(red.score(logits)) == pytest.approx(6 + 3.6, abs=1e-2)
    nothing = class_target(detector, outputs, sample, found, 'blue')
    assert not len(nothing.priors)
    strongest = class_target(detector, outputs, sample, found, 'blue', reduce='max')
    assert strongest.priors.tolist() == [12 + 7] and strongest.text == 'strongest blue'
    with pytest.raises(ValueError, match="no class 'green': the detector knows red, blue"):
        class_target(detector, outputs, sample, found, 'green')
    with pytest.raises(ValueError, match="reduce is 'mean', but must be 'sum' or 'max'"):
        class_target(detector, outputs, sample, found, 'red', reduce='mean')
    with pytest.raises(ValueError, match='box 7 was asked for, but there are 2 detections'):
        box_target(detector, outputs, sample, found, 7)


def test_names_that_do_not_fit_the_head_are_numbers():
    detector, sample = colour_detector(), colour_sample()
    detector.dataset_meta = dict(classes=('a', 'b', 'c'))
    inputs = colour_image((2, 3, 0, 1.0))
    with torch.no_grad():
        outputs = head_outputs(detector, inputs)
        found = detector.predict(inputs, [sample])[0].pred_instances
    target = box_target(detector, outputs, sample, found, 0)
    assert target.text.startswith('box 0: class 0 1.00')


def test_detection_without_a_prediction_is_said():
    detector, sample = colour_detector(), colour_sample()
    inputs = colour_image((2, 3, 0, 1.0))
    with torch.no_grad():
        outputs = head_outputs(detector, inputs)
        found = detector.predict(inputs, [sample])[0].pred_instances
    found.bboxes += 1000
    with pytest.raises(ValueError, match='no raw prediction has the box of detection 0'):
        box_target(detector, outputs, sample, found, 0)


def test_other_detectors_are_named():
    class TwoStage(nn.Module):
        def extract_feat(self, inputs):
            return (inputs,)

    with pytest.raises(ValueError, match="TwoStage has no dense head .* 'eigen-cam'"):
        head_outputs(TwoStage(), torch.zeros(1, 3, 8, 8))


def test_transformers_are_named():
    transformer = tiny_transformer()
    # their heads look like dense ones
    assert hasattr(transformer.bbox_head, 'cls_out_channels')
    assert hasattr(transformer.bbox_head, 'predict_by_feat')
    with pytest.raises(ValueError, match="^DETR has no dense head .* 'eigen-cam'"):
        head_outputs(transformer, torch.zeros(1, 3, 64, 96))
    # a detector of another make with such a head
    detector = colour_detector()
    detector.bbox_head = transformer.bbox_head
    with pytest.raises(ValueError, match='^SingleStageDetector has no dense head'):
        head_outputs(detector, torch.zeros(1, 3, 64, 96))
