"""Heat maps against readable loops, and the scores they explain traced back through real heads."""

import copy

import pytest
import torch
from cam_toys import STRIDE, colour_detector, colour_image, colour_sample, tiny_transformer
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn
from torch.nn import functional as F

import mmdet_contrast  # noqa: F401
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.visualization.cam import (
    CamTarget,
    box_target,
    class_activation_map,
    class_logits,
    class_target,
    head_outputs,
    trace_detections,
)

IMAGE = ((2, 3, 0, 1.0), (5, 9, 0, 0.8), (1, 7, 2, 0.9))


class TinyHead(nn.Module):
    cls_out_channels = num_classes = 2

    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.cls = nn.Conv2d(4, 2, 1)

    def forward(self, levels):
        scores = [self.cls(torch.tanh(self.shared(level))) for level in levels]
        return scores, [score.repeat(1, 2, 1, 1) for score in scores]


class TinyDetector(nn.Module):
    """Two levels, an activation in place after the captured module, a module that is not called."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.neck = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.bbox_head = TinyHead()
        self.unused = nn.Conv2d(1, 1, 1)

    def extract_feat(self, inputs):
        fine = F.relu(self.norm(self.stem(inputs)), inplace=True)
        return fine, self.neck(fine).sigmoid()

    def forward(self, inputs):
        return self.bbox_head(self.extract_feat(inputs))


@pytest.fixture
def tiny():
    return TinyDetector().eval(), torch.randn(1, 3, 16, 24)


def tiny_target(*priors, label=1):
    return CamTarget(label, torch.tensor(priors), 'tiny', torch.zeros(0, 4))


def from_stem(detector, features):
    fine = F.relu(detector.norm(features))
    return detector.bbox_head((fine, detector.neck(fine).sigmoid()))


def slow_heat(detector, inputs, target, weigh):
    """ReLU(sum of weight x activation) of `stem`, element by element, scaled and enlarged."""
    features = detector.stem(inputs).detach()
    _, channels, height, width = features.shape
    heat = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            total = 0.0
            for channel in range(channels):
                weight = weigh(features, channel, row, column)
                total += float(weight) * float(features[0, channel, row, column])
            heat[row, column] = max(total, 0.0)
    heat = heat / heat.max()
    heat = F.interpolate(heat[None, None], size=inputs.shape[-2:], mode='bilinear')[0, 0]
    return heat / heat.max()


def score_from_stem(detector, features, target):
    return target.score(class_logits(detector.bbox_head, from_stem(detector, features)[0]))[0]


@pytest.mark.parametrize('method', ['grad-cam', 'hires-cam'])
def test_gradient_methods_equal_a_loop(tiny, method):
    detector, inputs = tiny
    # 8 x 12 places of the fine level, then 4 x 6
    target = tiny_target(30, 100)
    features = detector.stem(inputs).detach().requires_grad_()
    score_from_stem(detector, features, target).backward()
    detector.zero_grad()
    gradient = features.grad

    def weigh(_, channel, row, column):
        if method == 'hires-cam':
            return gradient[0, channel, row, column]
        return sum(gradient[0, channel].flatten().tolist()) / gradient[0, channel].numel()

    result = class_activation_map(detector, inputs, target, ['stem'], method=method)
    assert result.used == ['stem[0]'] and not result.empty
    torch.testing.assert_close(
        result.heat, slow_heat(detector, inputs, target, weigh), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('training', [True, False])
def test_the_detector_is_left_as_it_was(tiny, training):
    detector, inputs = tiny
    detector.train(training)
    detector.norm.eval()
    detector.stem.weight.requires_grad_(False)
    before = copy.deepcopy(detector.state_dict())
    with torch.no_grad():
        class_activation_map(detector, inputs, tiny_target(30), ['stem', 'norm'])
        with pytest.raises(ValueError):
            class_activation_map(detector, inputs, tiny_target(30), ['unused'])
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    assert not any(module._forward_hooks for module in detector.modules())
    assert [detector.training, detector.norm.training] == [training, False]
    frozen = [name for name, weight in detector.named_parameters() if not weight.requires_grad]
    assert frozen == ['stem.weight']
    assert all(weight.grad is None for weight in detector.parameters())


@pytest.mark.parametrize('method', ['grad-cam', 'hires-cam'])
def test_levels_of_a_shared_module(tiny, method):
    detector, inputs = tiny
    inputs = inputs.abs()
    with torch.no_grad():
        nn.init.uniform_(detector.bbox_head.shared.weight, 0.0, 0.1)
        detector.bbox_head.shared.bias.fill_(0.1)
        detector.bbox_head.cls.weight.abs_()
    # the last place of the coarse level
    target = tiny_target(8 * 12 + 23)
    result = class_activation_map(detector, inputs, target, ['bbox_head.shared'], method=method)
    assert result.used == ['bbox_head.shared[1]'] and result.empty == ['bbox_head.shared[0]']
    only = class_activation_map(
        detector, inputs, target, ['bbox_head.shared'], level=1, method=method
    )
    torch.testing.assert_close(only.heat, result.heat)
    empty = class_activation_map(
        detector, inputs, target, ['bbox_head.shared'], level=0, method=method
    )
    assert not empty.used and float(empty.heat.abs().max()) == 0


@pytest.mark.parametrize('method', ['grad-cam', 'hires-cam'])
@pytest.mark.parametrize('index', [0, 2])
def test_box_is_hottest_at_its_object(method, index):
    detector, inputs, sample = colour_detector(), colour_image(*IMAGE), colour_sample()
    with torch.no_grad():
        detections = detector.predict(inputs, [sample])[0].pred_instances
        outputs = head_outputs(detector, inputs)
    assert len(detections) == 3
    target = box_target(detector, outputs, sample, detections, index)
    heat = class_activation_map(detector, inputs, target, ['backbone'], method=method).heat
    if method == 'hires-cam':
        # nothing but the cell of the object
        row, column = divmod(int(heat.argmax()), heat.shape[1])
        x1, y1, x2, y2 = detections.bboxes[index].tolist()
        assert x1 <= column <= x2 and y1 <= row <= y2
        outside = heat.clone()
        outside[int(y1) : int(y2), int(x1) : int(x2)] = 0
        assert float(outside.max()) == 0
    else:
        # weights of whole channels: every object of the class is lit, in proportion to its colour
        cells = F.avg_pool2d(heat[None, None], STRIDE)[0, 0]
        lit = {(row, column) for row, column, channel, _ in IMAGE if channel == 2 * target.label}
        top = cells.flatten().topk(len(lit)).indices.tolist()
        assert {divmod(place, cells.shape[1]) for place in top} == lit


def test_a_level_that_is_not_there(tiny):
    detector, inputs = tiny
    target = tiny_target(30)
    with pytest.raises(ValueError, match=r"level is 2, but module 'stem' gave 1 feature maps"):
        class_activation_map(detector, inputs, target, ['stem'], level=2)


class Regions(nn.Module):
    """Cuts five regions out of the image, as the first part of a head of regions does."""

    def forward(self, inputs):
        return inputs[:, :, :7, :7].repeat(5, 1, 1, 1)


def test_maps_of_regions_are_refused(tiny):
    detector, inputs = tiny
    detector.regions = Regions()
    extract_feat = detector.extract_feat

    def with_regions(images):
        detector.regions(images)
        return extract_feat(images)

    detector.extract_feat = with_regions
    with pytest.raises(ValueError, match="'regions' gives a map for each of 5 regions"):
        class_activation_map(detector, inputs, tiny_target(30), ['regions'])
    assert class_activation_map(detector, inputs, tiny_target(30), ['stem']).used


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


class HeadDetector(nn.Module):
    """Features as images: the head is what is tested."""

    def __init__(self, name):
        super().__init__()
        self.bbox_head = MODELS.build(dict(HEADS[name], test_cfg=TEST_CFG)).eval()
        self.dataset_meta = dict(classes=('a', 'b', 'c'))
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
    detector, sample = HeadDetector(name), colour_sample(scale=0.5)
    head = detector.bbox_head
    with torch.no_grad():
        outputs = head_outputs(detector, torch.zeros(1, 3, 64, 96))
        detections = detections_of(detector, outputs, sample)
        assert len(detections) >= 5
        priors = trace_detections(head, outputs, sample, detections, range(len(detections)))
        logits = class_logits(head, outputs[0])[0][priors]
    scores = logits.softmax(-1) if name == 'retina_softmax' else logits.sigmoid()
    scores = scores[torch.arange(len(logits)), detections.labels]
    if name in ('fcos', 'atss', 'yolox'):
        factor = torch.cat([level.flatten() for level in outputs[2]]).sigmoid()[priors]
        scores = scores * factor
    # the score of the detection, exactly: it is that prediction and no neighbour
    torch.testing.assert_close(scores, detections.scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', ['retina', 'fcos', 'gfl', 'yolov8'])
def test_gradient_reaches_the_predicting_place(name):
    detector, sample = HeadDetector(name), colour_sample()
    detector.levels = [level.requires_grad_() for level in detector.levels]
    outputs = head_outputs(detector, torch.zeros(1, 3, 64, 96))
    detections = detections_of(detector, outputs, sample)
    target = box_target(detector, outputs, sample, detections, 0)
    target.score(class_logits(detector.bbox_head, outputs[0])).sum().backward()
    reached = [level.grad is not None and bool(level.grad.any()) for level in detector.levels]
    assert sum(reached) == 1


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
    logits = class_logits(detector.bbox_head, outputs[0])
    assert float(red.score(logits)) == pytest.approx(6 + 3.6, abs=1e-2)
    strongest = class_target(detector, outputs, sample, found, 'blue')
    assert strongest.priors.tolist() == [12 + 7] and not len(strongest.boxes)
    assert strongest.text == 'strongest blue, not detected'
    with pytest.raises(LaunchError, match="no class 'green', but red"):
        class_target(detector, outputs, sample, found, 'green')


def test_detectors_without_a_dense_head_are_named():
    class TwoStage(nn.Module):
        pass

    with pytest.raises(LaunchError, match='TwoStage has no dense head.*feature_map.py'):
        head_outputs(TwoStage(), torch.zeros(1, 3, 8, 8))
    # its head looks like a dense one
    assert hasattr(tiny_transformer().bbox_head, 'cls_out_channels')
    with pytest.raises(LaunchError, match='^DETR has no dense head'):
        head_outputs(tiny_transformer(), torch.zeros(1, 3, 64, 96))
