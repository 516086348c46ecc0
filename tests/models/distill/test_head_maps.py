"""Maps of heads against loops, and against the boxes that the heads predict."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from mmdet_contrast.models.distill import (
    decode_boxes,
    join_levels,
    object_weights,
    without_negative_sides,
)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
@pytest.mark.parametrize('anchors', [1, 3])
def test_join_levels(anchors, dtype):
    sizes = ((3, 5), (2, 2))
    maps = [torch.randn(2, anchors * 4, *size, dtype=torch.float64).to(dtype) for size in sizes]
    joined = join_levels(maps, 4)
    assert joined.shape == (2, anchors, 4, 15 + 4)
    assert joined.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for anchor in range(anchors):
        for channel in range(4):
            place = 0
            for level in maps:
                for row in level[:, anchor * 4 + channel].unbind(1):
                    for cell in row.unbind(1):
                        assert torch.equal(joined[:, anchor, channel, place], cell.to(joined))
                        place += 1


def test_object_weights():
    """A slow loop over images, anchors and cells."""
    logits = torch.randn(2, 3, 4, 7)
    weights = object_weights(logits)
    assert weights.shape == (2, 3, 7)
    for image, found in zip(logits, weights):
        scores = [
            [max(image[anchor, :, cell].sigmoid().tolist()) for cell in range(7)]
            for anchor in range(3)
        ]
        mean = sum(map(sum, scores)) / 21
        for anchor in range(3):
            expected = [max(0.0, score - mean) for score in scores[anchor]]
            torch.testing.assert_close(found[anchor], torch.tensor(expected))


def test_an_even_background_has_no_weight():
    logits = torch.full((1, 9, 1, 80), -3.0)
    logits[0, 4, 0, 66] = 2.0
    weights = object_weights(logits)
    assert weights.nonzero().tolist() == [[0, 4, 66]] and weights.max() > 0.8


HEADS = [
    dict(
        type='RetinaHead',
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4, 5], ratios=[0.5, 1.0], strides=[8, 16]
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
    ),
    dict(
        type='ATSSHead',
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=[8, 16],
        ),
    ),
    dict(type='FCOSHead', strides=(8, 16), regress_ranges=((-1, 64), (64, 1e8)), norm_on_bbox=True),
    dict(
        type='RTMDetHead',
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
    ),
]


@pytest.mark.parametrize('cfg', HEADS, ids=[cfg['type'] for cfg in HEADS])
def test_decoded_boxes_are_those_that_the_head_predicts(cfg):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    head = MODELS.build(dict(cfg, num_classes=2, in_channels=8, feat_channels=32)).eval()
    head.test_cfg = ConfigDict(score_thr=-1.0, nms_pre=10**6)
    feats = [torch.randn(2, 8, 3, 4), torch.randn(2, 8, 2, 2)]
    with torch.no_grad():
        outputs = [list(maps) for maps in head(feats)]
        boxes = decode_boxes(head, outputs[1])
        # the score of a location tells which it is
        anchors = outputs[0][0].shape[1] // 2
        places = torch.arange(anchors * 2 * 16, dtype=torch.float).view(2, anchors, 16) / 100
        outputs[0] = [
            torch.stack(
                (
                    part.view(2, anchors, *m.shape[2:]),
                    torch.full_like(part, -99.0).view(2, anchors, *m.shape[2:]),
                ),
                dim=2,
            ).flatten(1, 2)
            for m, part in zip(outputs[0], (places[..., :12], places[..., 12:]))
        ]
        if len(outputs) > 2:
            outputs[2] = [torch.full_like(m, 99.0) for m in outputs[2]]
        metas = [dict(img_shape=(10**6, 10**6), scale_factor=(1.0, 1.0))] * 2
        found = head.predict_by_feat(*outputs, batch_img_metas=metas, with_nms=False)
        assert boxes.shape == (2, 16, anchors, 4)
        for image in range(2):
            first = found[image].bboxes[found[image].labels == 0]
            order = found[image].scores[found[image].labels == 0].argsort()
            # the head cuts boxes at the border
            expected = boxes[image].transpose(0, 1).flatten(0, 1).clamp(min=0)
            torch.testing.assert_close(first[order], expected)
        if cfg['type'] == 'FCOSHead':
            # in training its maps are in strides
            head.train()
            torch.testing.assert_close(decode_boxes(head, head(feats)[1]), boxes)


def test_giou_is_bounded_for_any_boxes():
    torch.manual_seed(0)
    boxes = (torch.randn(2, 1000, 4) * 100).requires_grad_()
    ours, theirs = (without_negative_sides(side) for side in boxes)
    loss = 1 - bbox_overlaps(ours, theirs, mode='giou', is_aligned=True)
    assert loss.min() >= 0 and loss.max() <= 2 + 1e-4
    loss.sum().backward()
    assert boxes.grad.isfinite().all()
    proper = (boxes[0, :, 2:] > boxes[0, :, :2]).all(dim=1)
    assert torch.equal(ours[proper], boxes[0][proper]) and 0 < proper.sum() < 1000
    raw = 1 - bbox_overlaps(*boxes.detach(), mode='giou', is_aligned=True)
    assert raw.min() < -1e6
