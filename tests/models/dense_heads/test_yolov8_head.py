import math

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet_contrast.models.dense_heads import YOLOv8Head
from mmdet_contrast.models.losses import complete_iou

CLASSES = 4
TEST_CFG = ConfigDict(
    score_thr=0.3, nms=dict(type='nms', iou_threshold=0.6), max_per_img=10, multi_label=True
)


def make_head(**kwargs):
    torch.manual_seed(0)
    settings = dict(num_classes=CLASSES, in_channels=[16, 16, 24], test_cfg=TEST_CFG)
    head = YOLOv8Head(**dict(settings, **kwargs))
    head.init_weights()
    return head


def make_maps(batch=2, height=64, width=96, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(height // s, width // s) for s in (8, 16, 32)]
    return tuple(
        [scale * torch.randn(batch, c, *shape, generator=generator) for shape in shapes]
        for c in (CLASSES, 64)
    )


def make_instances(counts, seed=0, height=64, width=96):
    generator = torch.Generator().manual_seed(seed)
    instances = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.6
        size = 4 + torch.rand(count, 2, generator=generator) * 36
        labels = torch.randint(CLASSES, (count,), generator=generator)
        instances.append(InstanceData(bboxes=torch.cat((corner, corner + size), 1), labels=labels))
    return instances


def metas(batch=2, height=64, width=96):
    return [dict(img_shape=(height, width), scale_factor=(1.0, 1.0))] * batch


def slow_losses(head, cls_scores, bbox_preds, instances):
    """Loop over images and points, dense targets, everything decoded."""
    points, strides = [], []
    for level, stride in zip(cls_scores, (8, 16, 32)):
        for y in range(level.shape[2]):
            for x in range(level.shape[3]):
                points.append(((x + 0.5) * stride, (y + 0.5) * stride))
                strides.append(stride)
    points, strides = torch.tensor(points), torch.tensor(strides).float()
    logits = torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, CLASSES) for m in cls_scores], 1)
    bins = torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, 4, 16) for m in bbox_preds], 1)
    distances = (bins.softmax(-1) * torch.arange(16.0)).sum(-1) * strides[:, None]
    boxes = torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)
    cls, bbox, dfl, total = 0, 0, 0, 0
    for i, gt in enumerate(instances):
        assigned = head.assigner.assign(
            logits[i : i + 1].sigmoid().transpose(1, 2),
            boxes[i : i + 1],
            points,
            gt.bboxes,
            gt.labels,
            torch.zeros(len(gt), dtype=torch.long),
        )
        target = torch.zeros_like(logits[i])
        for p, g, score in zip(*[part.tolist() for part in assigned]):
            target[p, gt.labels[g]] = score
            total += score
            bbox += score * (1 - complete_iou(boxes[i, p] / strides[p], gt.bboxes[g] / strides[p]))
            x, y = (points[p] / strides[p]).tolist()
            x1, y1, x2, y2 = (gt.bboxes[g] / strides[p]).tolist()
            for side, distance in enumerate((x - x1, y - y1, x2 - x, y2 - y)):
                distance = min(max(distance, 0), 14.99)
                low = int(distance)
                log_p = bins[i, p, side].log_softmax(-1)
                term = (low + 1 - distance) * log_p[low] + (distance - low) * log_p[low + 1]
                dfl -= score * term / 4
        cls += F.binary_cross_entropy_with_logits(logits[i], target, reduction='sum')
    factor = len(logits) / max(total, 1)
    return dict(
        loss_cls=0.5 * cls * factor, loss_bbox=7.5 * bbox * factor, loss_dfl=1.5 * dfl * factor
    )


@pytest.mark.parametrize('counts', [(3, 5), (0, 4), (40, 1)])
def test_losses_equal_a_loop_with_gradients(counts):
    head = make_head()
    maps = make_maps()
    for level in (*maps[0], *maps[1]):
        level.requires_grad_()
    instances = make_instances(counts)
    ours = head.loss_by_feat(*maps, instances, metas())
    theirs = slow_losses(head, *maps, instances)
    assert list(ours) == ['loss_cls', 'loss_bbox', 'loss_dfl']
    inputs = (*maps[0], *maps[1])
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(sum(losses.values()), inputs) for losses in (ours, theirs)]
    for first, second in zip(*gradients):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def test_no_object_in_the_batch_is_finite_and_reaches_every_parameter():
    head = make_head()
    feats = [torch.randn(2, c, 64 // s, 96 // s) for c, s in zip((16, 16, 24), (8, 16, 32))]
    losses = head.loss_by_feat(*head(feats), make_instances((0, 0)), metas())
    assert losses['loss_bbox'] == 0
    assert losses['loss_dfl'] == 0
    assert 0 < losses['loss_cls'] < 1e4
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_boxes_of_mmdetections_box_type():
    head, maps = make_head(), make_maps()
    plain = make_instances((3, 2))
    typed = [InstanceData(bboxes=HorizontalBoxes(gt.bboxes), labels=gt.labels) for gt in plain]
    first = head.loss_by_feat(*maps, plain, metas())
    second = head.loss_by_feat(*maps, typed, metas())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_losses_by_batch_or_not():
    maps, instances = make_maps(), make_instances((3, 2))
    scaled = make_head().loss_by_feat(*maps, instances, metas())
    plain = make_head(scale_by_batch=False).loss_by_feat(*maps, instances, metas())
    for name in scaled:
        torch.testing.assert_close(scaled[name], 2 * plain[name])


def test_half_precision_maps_give_float32_losses():
    head, instances = make_head(), make_instances((3, 2))
    maps = make_maps(scale=3.0)
    half = tuple([level.bfloat16().requires_grad_() for level in part] for part in maps)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = head.loss_by_feat(*half, instances, metas())
    full = head.loss_by_feat(*[[m.detach().float() for m in p] for p in half], instances, metas())
    for name in losses:
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], full[name])
    sum(losses.values()).backward()
    assert all(level.grad.isfinite().all() for part in half for level in part)


def test_biases():
    head = make_head()
    for stride, cls, reg in zip(
        (8, 16, 32), head.head_module.cls_convs, head.head_module.reg_convs
    ):
        assert reg[-1].bias.tolist() == [1.0] * 64
        expected = math.log(5 / CLASSES / (640 / stride) ** 2)
        assert cls[-1].bias.tolist() == pytest.approx([expected] * CLASSES)


def planted(logits, row=1, column=2, distances=(1.0, 0.5, 2.0, 1.5)):
    """Maps of one image with one confident point on level 16; distances in strides."""
    cls_scores, bbox_preds = make_maps(1, scale=0.0)
    for level in cls_scores:
        level -= 10
    cls_scores[1][0, :, row, column] = torch.tensor(logits)
    for side, distance in enumerate(distances):
        low = int(distance)
        bins = torch.full((16,), -50.0)
        bins[low] = math.log(low + 1 - distance + 1e-9)
        bins[low + 1] = math.log(distance - low + 1e-9)
        bbox_preds[1][0, 16 * side : 16 * side + 16, row, column] = bins
    return cls_scores, bbox_preds


def test_prediction_by_hand():
    # the point at (40, 24), distances in strides of 16
    maps = planted([2.0, -10.0, 1.0, -10.0])
    (result,) = make_head().predict_by_feat(*maps, batch_img_metas=metas(1), cfg=TEST_CFG)
    expected = torch.tensor([40.0 - 16, 24 - 8, 40 + 32, 24 + 24])
    torch.testing.assert_close(result.bboxes, expected.expand(2, 4), rtol=0, atol=1e-3)
    assert result.labels.tolist() == [0, 2]
    torch.testing.assert_close(result.scores, torch.tensor([2.0, 1.0]).sigmoid())


def test_boxes_are_decoded_in_float32_under_mixed_precision():
    head, maps = make_head(), make_maps(scale=3.0)
    cfg = ConfigDict(TEST_CFG, score_thr=0.0, nms_pre=50)
    expected = head.predict_by_feat(*maps, batch_img_metas=metas(), cfg=cfg)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = head.predict_by_feat(*maps, batch_img_metas=metas(), cfg=cfg)
    for ours, theirs in zip(found, expected):
        assert len(theirs.bboxes)
        torch.testing.assert_close(ours.bboxes, theirs.bboxes)


@pytest.mark.parametrize(
    'options',
    [
        dict(multi_label=False),
        dict(nms=dict(type='nms', iou_threshold=0.6, class_agnostic=True)),
    ],
)
def test_one_label_to_a_point(options):
    maps = planted([2.0, -10.0, 1.0, -10.0])
    cfg = ConfigDict(TEST_CFG, **options)
    (result,) = make_head().predict_by_feat(*maps, batch_img_metas=metas(1), cfg=cfg)
    assert result.labels.tolist() == [0]


def test_boxes_are_clipped_and_rescaled():
    maps = planted([2.0, -10.0, -10.0, -10.0], distances=(6.0, 0.5, 2.0, 9.0))
    meta = [dict(img_shape=(64, 96), ori_shape=(16, 48), scale_factor=(2.0, 4.0))]
    (result,) = make_head().predict_by_feat(*maps, batch_img_metas=meta, cfg=TEST_CFG, rescale=True)
    expected = torch.tensor([[0.0, 16 / 4, 72 / 2, 64 / 4]])
    torch.testing.assert_close(result.bboxes, expected, rtol=0, atol=1e-3)


CONTRASTIVE = dict(type='ContrastiveYOLOv8Head', num_classes=CLASSES, in_channels=[16, 16, 24])


def test_contrastive_head_has_a_projector_for_each_level():
    contrast = dict(sampler=dict(type='ViewBoxes', pool_size=2))
    head = MODELS.build(dict(CONTRASTIVE, contrast=contrast))
    assert [layer.in_features for layer in head.contrast.projector.hidden] == [96, 96, 96]


def test_the_contrastive_losses_grow_with_the_batch_as_the_others_do(monkeypatch):
    contrast = dict(sampler=dict(type='ViewBoxes', background=0), queue=dict(type='FeatureQueue'))
    # in training a queue and the trust change from call to call
    head = MODELS.build(dict(CONTRASTIVE, contrast=contrast)).eval()
    samples = []
    for instances in make_instances((3, 2)):
        instances.view_valid = torch.ones(len(instances), dtype=torch.bool)
        samples.append(DetDataSample(gt_instances=instances, metainfo=dict(img_shape=(64, 96))))
    inputs = [torch.zeros(2, 3, 64, 96) for _ in samples]
    layout = MODELS.build(dict(type='ContrastiveDataPreprocessor'))
    samples = layout(dict(inputs=inputs, data_samples=samples), True)['data_samples']
    generator = torch.Generator().manual_seed(1)
    feats = tuple(
        torch.randn(3, c, 64 // s, 96 // s, generator=generator)
        for c, s in ((16, 8), (16, 16), (24, 32))
    )

    def losses():
        values = head.loss(feats, samples).items()
        return {name: loss.item() for name, loss in values if 'loss' in name}

    own = head.contrast(feats, samples).items()
    own = {name: loss.item() for name, loss in own if 'loss' in name}
    many = losses()
    assert own and {n: many[n] for n in own} == pytest.approx({n: 2 * v for n, v in own.items()})
    monkeypatch.setattr('mmdet_contrast.models.dense_heads.yolov8_head.get_world_size', lambda: 3)
    assert losses() == pytest.approx({name: 3 * value for name, value in many.items()})
    monkeypatch.undo()
    head.scale_by_batch = False
    assert losses() == pytest.approx({name: value / 2 for name, value in many.items()})
