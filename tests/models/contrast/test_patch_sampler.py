import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_contrast.models.contrast import PatchSampler

STRIDES = (8, 32)
PADDED = (96, 128)
SHAPES = ((96, 120), (70, 128), (96, 128))


def make_batch(counts=(5, 3, 0), seed=0):
    """Originals of several sizes in one padded batch, then their views; features."""
    generator = torch.Generator().manual_seed(seed)
    originals, views = [], []
    for position, (count, shape) in enumerate(zip(counts, SHAPES)):
        start = torch.rand(count + 2, 2, generator=generator) * 70
        size = 4 + torch.rand(count + 2, 2, generator=generator) * 40
        boxes = torch.cat((start, start + size), dim=1)
        for samples, meta in (
            (originals, dict(view=0)),
            (views, dict(view=1, view_of=position)),
        ):
            sample = DetDataSample(metainfo=dict(img_shape=shape, **meta))
            sample.gt_instances = InstanceData(
                bboxes=boxes[:count].clone(),
                labels=torch.arange(count) % 3,
                view_valid=torch.arange(count) % 4 != 1,
            )
            sample.ignored_instances = InstanceData(bboxes=boxes[count:].clone())
            samples.append(sample)
    feats = [torch.randn(2 * len(counts), 4, PADDED[0] // s, PADDED[1] // s) for s in STRIDES]
    return feats, originals + views


def readable_loop(sample, size, stride, region):
    """All locations that may be drawn, one cell at a time, with their classes."""
    found = {}
    instances = sample.gt_instances
    for y in range(size[0]):
        for x in range(size[1]):
            cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
            if cx >= sample.img_shape[1] or cy >= sample.img_shape[0]:
                continue
            label, area, changed = -1, math.inf, False
            for i in range(len(instances)):
                x1, y1, x2, y2 = instances.bboxes[i].tolist()
                if x1 <= cx < x2 and y1 <= cy < y2:
                    changed |= bool(instances.view_valid[i])
                    if (x2 - x1) * (y2 - y1) < area:
                        label, area = int(instances.labels[i]), (x2 - x1) * (y2 - y1)
            touched = False
            for box in [*instances.bboxes.tolist(), *sample.ignored_instances.bboxes.tolist()]:
                x1, y1, x2, y2 = [math.floor(v) for v in box[:2]] + [math.ceil(v) for v in box[2:]]
                columns = range(x * stride, (x + 1) * stride)
                rows = range(y * stride, (y + 1) * stride)
                touched |= any(x1 <= c < x2 for c in columns) and any(y1 <= r < y2 for r in rows)
            if dict(boxes=changed, outside=not touched, all=True)[region]:
                found[y, x] = label
    return found


@pytest.mark.parametrize('num_patches', [6, 10000])
@pytest.mark.parametrize('region', ['boxes', 'outside', 'all'])
def test_locations_are_those_of_the_readable_loop(region, num_patches):
    feats, samples = make_batch()
    by_level = PatchSampler(num_patches, region)(feats, STRIDES, samples)
    total = 0
    for places, feat, stride in zip(by_level, feats, STRIDES):
        assert torch.equal(places.view, places.original + 3)
        for position in range(3):
            allowed = readable_loop(samples[position], feat.shape[2:], stride, region)
            mine = places.original == position
            drawn = list(zip(places.y[mine].tolist(), places.x[mine].tolist()))
            assert len(set(drawn)) == len(drawn) == min(num_patches, len(allowed))
            assert [allowed[place] for place in drawn] == places.labels[mine].tolist()
            total += len(drawn)
    assert total > 10


def test_draws_are_even_and_follow_the_seed():
    feats, samples = make_batch()
    sampler, counts = PatchSampler(8, 'all'), torch.zeros(12, 16)
    for _ in range(600):
        places = sampler(feats, STRIDES, samples)[0]
        mine = places.original == 0
        counts[places.y[mine], places.x[mine]] += 1
    inside = counts[:, :15]  # 120 of 128 pixels
    assert counts[:, 15].sum() == 0
    expected = 600 * 8 / inside.numel()
    # chi-square of 179 degrees of freedom: mean 179, deviation 19
    assert ((inside - expected) ** 2 / expected).sum() < 179 + 5 * 19
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(sampler(feats, STRIDES, samples)[0].y)
    assert torch.equal(*drawn)


def test_order_of_the_boxes_changes_nothing():
    feats, samples = make_batch()
    places = []
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2]):
        for i in (0, 3):
            samples[i].gt_instances = samples[i].gt_instances[torch.tensor(order)]
        torch.manual_seed(0)
        places.append(PatchSampler(20)(feats, STRIDES, samples))
    for first, second in zip(*places):
        assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_nothing_to_draw():
    feats, samples = make_batch((0, 0, 0))
    assert [len(x.y) for x in PatchSampler()(feats, STRIDES, samples)] == [0, 0]
    # a batch in which no image has a view
    assert [len(x.y) for x in PatchSampler()(feats, STRIDES, samples[:3])] == [0, 0]


def test_views_that_show_objects_elsewhere():
    feats, samples = make_batch()
    samples[3].gt_instances.bboxes[0] += 1
    with pytest.raises(ValueError, match='boxes are not where those of its image are'):
        PatchSampler()(feats, STRIDES, samples)
    samples[3].set_metainfo(dict(canvas=True))
    with pytest.raises(ValueError, match='got a canvas in place of a full second view'):
        PatchSampler()(feats, STRIDES, samples)


@pytest.mark.parametrize(
    'kwargs, message', [(dict(num_patches=0), 'at least 1'), (dict(region='box'), "region='box'")]
)
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PatchSampler(**kwargs)
