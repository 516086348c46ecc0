import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_contrast.models.contrast import PatchSampler
from mmdet_contrast.models.data_preprocessors import ContrastiveDataPreprocessor

STRIDES = (8, 32)
SHAPES = ((96, 120), (70, 128), (96, 128))


def make_batch(counts=(5, 3, 0), seed=0, divisor=32):
    """Images of several sizes and their views as a batch, and its features."""
    generator = torch.Generator().manual_seed(seed)
    inputs, samples = [], []
    for count, shape in zip(counts, SHAPES):
        start = torch.rand(count + 2, 2, generator=generator) * 70
        size = 4 + torch.rand(count + 2, 2, generator=generator) * 40
        boxes = torch.cat((start, start + size), dim=1)
        sample = DetDataSample(metainfo=dict(img_shape=shape))
        sample.gt_instances = InstanceData(
            bboxes=boxes[:count].clone(),
            labels=torch.arange(count) % 3,
            view_valid=torch.arange(count) % 4 != 1,
        )
        sample.ignored_instances = InstanceData(bboxes=boxes[count:].clone())
        inputs.append(torch.zeros(2, 3, *shape))
        samples.append(sample)
    layout = ContrastiveDataPreprocessor(pad_size_divisor=divisor)
    data = layout(dict(inputs=inputs, data_samples=samples), True)
    height, width = data['inputs'].shape[2:]
    feats = [torch.randn(len(data['inputs']), 4, -(-height // s), -(-width // s)) for s in STRIDES]
    return feats, data['data_samples']


def places_of(batch, level, image, stride):
    """The cells (row, column) of an image that were drawn on a level, and their classes."""
    count = batch.num_pairs
    mine = batch.valid[level] & (batch.rows[level, :count, 0] == image)
    corners = batch.rows[level, :count][mine][:, 1:]
    assert (corners[:, 2:] - corners[:, :2] == stride).all()
    cells = (corners[:, [1, 0]] / stride).long().tolist()
    return [tuple(cell) for cell in cells], batch.labels[level][mine].tolist()


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
            if changed or region == 'all':
                found[y, x] = label
    return found


@pytest.mark.parametrize('num_patches', [6, 1000])
@pytest.mark.parametrize('region', ['boxes', 'all'])
def test_locations_are_those_of_the_readable_loop(region, num_patches):
    feats, samples = make_batch()
    batch, total = PatchSampler(num_patches, region)(feats, STRIDES, samples), 0
    assert batch.rows.shape == (2, 2 * 3 * num_patches, 5) and batch.rows.isfinite().all()
    for level, (feat, stride) in enumerate(zip(feats, STRIDES)):
        for image in range(3):
            allowed = readable_loop(samples[image], feat.shape[2:], stride, region)
            drawn, labels = places_of(batch, level, image, stride)
            assert len(set(drawn)) == len(drawn) == min(num_patches, len(allowed))
            assert [allowed[place] for place in drawn] == labels
            total += len(drawn)
    assert total > 10


# features may reach beyond the batch, whose size need not be a multiple of the strides
@pytest.mark.parametrize('divisor', [32, 1])
@pytest.mark.parametrize('levels', [(0, 1), (1,)])
def test_keys_are_at_the_same_place_in_the_view(divisor, levels):
    feats, samples = make_batch(divisor=divisor)
    chosen = [feats[i] for i in levels], [STRIDES[i] for i in levels]
    batch = PatchSampler(20, 'all')(*chosen, samples)
    query, key = batch.rows.chunk(2, dim=1)
    height, width = samples[0].batch_input_shape
    for rois, others in zip(query.flatten(0, 1), key.flatten(0, 1)):
        image, *box = rois.tolist()
        picture, left, top = samples[int(image)].view_place
        corner = [left * width, top * height] * 2
        expected = [picture, *(v / 2 + c for v, c in zip(box, corner))]
        assert others.tolist() == pytest.approx(expected)


def test_draws_are_even_and_follow_the_seed():
    feats, samples = make_batch()
    sampler, counts = PatchSampler(8, 'all'), torch.zeros(12, 16)
    for _ in range(600):
        batch = sampler(feats[:1], STRIDES[:1], samples)
        for place in places_of(batch, 0, 0, 8)[0]:
            counts[place] += 1
    inside = counts[:, :15]  # 120 of 128 pixels
    assert counts[:, 15].sum() == 0
    expected = 600 * 8 / inside.numel()
    # chi-square of 179 degrees of freedom: mean 179, deviation 19
    assert ((inside - expected) ** 2 / expected).sum() < 179 + 5 * 19
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(sampler(feats, STRIDES, samples).rows)
    assert torch.equal(*drawn)


def test_nothing_to_draw():
    feats, samples = make_batch((0, 0, 0))
    batch = PatchSampler(4)(feats, STRIDES, samples)
    assert batch.rows.shape == (2, 2 * 12, 5) and not batch.valid.any()
    # one shape with that of other ranks, that may have something
    assert batch.labels.shape == batch.valid.shape == (2, 12)


def test_views_that_show_objects_elsewhere():
    feats, samples = make_batch()
    samples[0].set_metainfo(dict(view_moved=True))
    with pytest.raises(ValueError, match='shows its objects at other places'):
        PatchSampler()(feats, STRIDES, samples)


def test_unknown_region():
    with pytest.raises(ValueError, match="region='box'"):
        PatchSampler(region='box')
