"""The added NMS operations against readable loops, and through real heads."""

import copy
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmcv.ops import nms as hard_nms
from mmcv.ops.nms import batched_nms
from mmdet.models.dense_heads import base_dense_head, rpn_head
from mmdet.models.layers import multiclass_nms
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_contrast import config_path
from mmdet_contrast.models.layers import diou_nms, nms, pairwise_diou

TYPES = ('diou_nms', 'weighted_nms')


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union else 0.0


def diou(a, b):
    rho = math.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
    diagonal = math.hypot(max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1]))
    return iou(a, b) - (rho / diagonal) ** 2 if diagonal else iou(a, b)


def loop(boxes, scores, labels, threshold, overlap):
    """Greedy suppression as in a textbook: the kept indices, and the cluster of each."""
    waiting = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    while waiting:
        best, rest = waiting[0], waiting[1:]
        removed = [
            i
            for i in rest
            if labels[i] == labels[best] and overlap(boxes[best], boxes[i]) > threshold
        ]
        kept.append((best, [best, *removed]))
        waiting = [i for i in rest if i not in removed]
    return kept


def weighted_mean(boxes, scores, cluster):
    total = sum(scores[i] for i in cluster)
    if total == 0:
        return boxes[cluster[0]]
    return [sum(scores[i] * boxes[i][side] for i in cluster) / total for side in range(4)]


@st.composite
def detections(draw):
    # Heads do not call it without a box.
    count = draw(st.integers(1, 40))
    side = st.integers(0, 12)
    boxes = []
    for _ in range(count):
        x, y = draw(st.integers(0, 24)), draw(st.integers(0, 24))
        boxes.append([x, y, x + draw(side), y + draw(side)])
    # Few values, so that many scores are equal.
    scores = [draw(st.integers(0, 8)) / 8 for _ in range(count)]
    labels = [draw(st.integers(0, 2)) for _ in range(count)]
    return boxes, scores, labels


def tensors(boxes, scores, labels):
    return (
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.long),
    )


@pytest.mark.parametrize('agnostic, block', [(False, 3), (True, 256)])
@pytest.mark.parametrize('kind', TYPES)
@settings(max_examples=40, deadline=None)
@given(found=detections(), threshold=st.sampled_from([0.0, 0.1234, 0.3871, 0.6543, 1.0]))
def test_equals_a_loop(kind, agnostic, block, found, threshold):
    boxes, scores, labels = found
    overlap = diou if kind == 'diou_nms' else iou
    if kind == 'weighted_nms':
        # of equal scores mmcv takes any first
        scores = [score + (len(scores) - i) / 1024 for i, score in enumerate(scores)]
    # The loop has double precision: a value next to the threshold may fall on its other side.
    assume(
        all(
            a == b or abs(overlap(a, b) - threshold) > 1e-5 or overlap(a, b) == 0
            for a in boxes
            for b in boxes
        )
    )
    groups = [0] * len(labels) if agnostic else labels
    expected = loop(boxes, scores, groups, threshold, overlap)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms, '_BLOCK', block)
        cfg = dict(type=kind, iou_threshold=threshold, class_agnostic=agnostic)
        given_boxes, given_scores, given_labels = tensors(boxes, scores, labels)
        dets, keep = batched_nms(given_boxes, given_scores, given_labels, cfg)
    assert keep.tolist() == [best for best, _ in expected]
    assert dets.shape == (len(expected), 5) and keep.dtype == torch.long
    assert torch.equal(dets[:, 4], given_scores[keep])
    if kind == 'diou_nms':
        wanted = [boxes[best] for best, _ in expected]
    else:
        wanted = [weighted_mean(boxes, scores, cluster) for _, cluster in expected]
    wanted = torch.tensor(wanted, dtype=torch.float32).reshape(-1, 4)
    torch.testing.assert_close(dets[:, :4], wanted, rtol=1e-5, atol=1e-5)
    # What a head takes from its own tensor are the moved boxes; rows not kept are untouched.
    assert torch.equal(given_boxes[keep], dets[:, :4])
    others = [i for i in range(len(boxes)) if i not in keep.tolist()]
    assert torch.equal(given_boxes[others], tensors(*found)[0][others])


def test_diou_spares_what_iou_removes():
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10]])
    scores = torch.tensor([0.9, 0.8])
    # IoU 3/7; the centres are 4 apart and the diagonal's square is 296.
    assert pairwise_diou(boxes, boxes)[0, 1].item() == pytest.approx(3 / 7 - 16 / 296)
    assert len(hard_nms(boxes, scores, 0.4)[1]) == 1
    assert len(diou_nms(boxes, scores, 0.4)[1]) == 2


@pytest.mark.parametrize(
    ('kind', 'dtype'),
    # mmcv's own has float32 alone on a CPU
    [('diou_nms', torch.half), ('diou_nms', torch.double), ('weighted_nms', torch.float)],
)
def test_precision_and_max_num(kind, dtype):
    boxes = torch.tensor([[0, 0, 1000, 1000], [4, 0, 1004, 1000], [0, 0, 9, 9]]).to(dtype)
    scores, labels = torch.tensor([0.75, 0.25, 0.875]).to(dtype), torch.tensor([0, 0, 0])
    cfg = dict(type=kind, iou_threshold=0.5)
    dets, keep = batched_nms(boxes.clone(), scores, labels, cfg)
    assert dets.dtype == dtype and keep.tolist() == [2, 0]
    first = [1, 0, 1001, 1000] if kind == 'weighted_nms' else [0, 0, 1000, 1000]
    assert dets[1, :4].tolist() == first
    assert batched_nms(boxes, scores, labels, dict(cfg, max_num=1))[1].tolist() == [2]


# ------------------------------------------------------------------------------ through MMDetection


@pytest.fixture(scope='module')
def detector():
    cfg = Config.fromfile(config_path('retina_shapes.py'))
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    # An untrained head finds one score everywhere: spread them.
    torch.nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.05)
    return model


def predict(model, nms):
    cfg = copy.deepcopy(model.bbox_head.test_cfg)
    cfg.update(nms_pre=200, max_per_img=1000, score_thr=0.0)
    cfg.nms = ConfigDict(nms) if nms else None
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 4 - 2
    meta = dict(img_shape=(64, 64), scale_factor=(2.0, 2.0), ori_shape=(32, 32))
    with torch.no_grad():
        outputs = model.bbox_head(model.extract_feat(images))
        return model.bbox_head.predict_by_feat(
            *outputs, batch_img_metas=[meta], cfg=cfg, rescale=True
        )[0]


@pytest.mark.parametrize('kind, agnostic', [('diou_nms', False), ('weighted_nms', True)])
def test_retina_head_predicts_with_it(detector, kind, agnostic):
    raw = predict(detector, None)
    nms = dict(type=kind, iou_threshold=0.4567, class_agnostic=agnostic)
    found = predict(detector, nms)
    boxes, scores = raw.bboxes.tolist(), raw.scores.tolist()
    groups = [0] * len(boxes) if agnostic else raw.labels.tolist()
    overlap = diou if kind == 'diou_nms' else iou
    expected = loop(boxes, scores, groups, 0.4567, overlap)
    assert 5 < len(expected) < len(boxes) / 2
    assert found.labels.tolist() == raw.labels[[best for best, _ in expected]].tolist()
    assert found.scores.tolist() == [scores[best] for best, _ in expected]
    wanted = [
        weighted_mean(boxes, scores, cluster) if kind == 'weighted_nms' else boxes[best]
        for best, cluster in expected
    ]
    torch.testing.assert_close(found.bboxes, torch.tensor(wanted), rtol=1e-4, atol=1e-4)
    if kind == 'weighted_nms':
        assert not torch.allclose(found.bboxes, raw.bboxes[[best for best, _ in expected]])


def test_rpn_and_multiclass_nms_use_it():
    rpn = rpn_head.RPNHead(
        in_channels=4,
        anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[1.0], strides=[8]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
    )
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [2, 0, 12, 10]])
    scores = torch.tensor([0.75, 0.25, 0.5])
    results = InstanceData(bboxes=boxes.clone(), scores=scores, level_ids=torch.tensor([0, 0, 1]))
    cfg = ConfigDict(nms=dict(type='weighted_nms', iou_threshold=0.5), max_per_img=10)
    proposals = rpn._bbox_post_process(results, cfg, img_meta={})
    assert proposals.bboxes.tolist() == [[0.5, 0, 10.5, 10], [2, 0, 12, 10]]
    # One foreground class, and the background last.
    class_scores = torch.stack((scores, 1 - scores), dim=1)
    dets, labels = multiclass_nms(boxes, class_scores, 0.3, cfg.nms)
    torch.testing.assert_close(dets, torch.tensor([[0.8, 0, 10.8, 10, 0.75]]))
    assert labels.tolist() == [0]


def test_stock_types_are_untouched(detector):
    stock = batched_nms.extends
    assert base_dense_head.batched_nms is batched_nms is rpn_head.batched_nms
    for cfg in (
        dict(type='nms', iou_threshold=0.5),
        dict(type='soft_nms', iou_threshold=0.5, min_score=0.05),
        dict(type='nms', iou_threshold=0.5, class_agnostic=True, max_num=7),
        dict(iou_threshold=0.5),
    ):
        ours = predict(detector, cfg)
        base_dense_head.batched_nms = stock
        try:
            theirs = predict(detector, cfg)
        finally:
            base_dense_head.batched_nms = batched_nms
        assert len(ours) > 5
        for key in ('bboxes', 'scores', 'labels'):
            assert torch.equal(ours[key], theirs[key])
    raw = batched_nms(torch.eye(4), torch.rand(4), torch.zeros(4), None)
    assert len(raw[1]) == 4


@pytest.mark.slow
def test_a_module_imported_before_and_one_after_have_it():
    code = (
        'import torch, mmdet.models.dense_heads.base_dense_head as before\n'
        'stock = before.batched_nms\n'
        'import mmcv, mmdet_contrast.models, mmdet_contrast.compat as compat\n'
        'from mmcv.ops import batched_nms as after\n'
        'assert before.batched_nms is after is mmcv.ops.batched_nms is not stock\n'
        'assert after.extends is stock\n'
        'compat.extend_batched_nms("x", lambda boxes, *args: boxes + 1)\n'
        'assert before.batched_nms is mmcv.ops.batched_nms is not after\n'
        'assert before.batched_nms.extends is stock\n'
        'box, one = torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1)\n'
        'dets, _ = before.batched_nms(box, one, one, dict(type="x", iou_threshold=0.5))\n'
        'assert dets.tolist() == [[1, 1, 2, 2, 1]]\n'
    )
    out = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
