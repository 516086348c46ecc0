import pytest
import torch
from mmdet.structures import DetDataSample

from mmdet_contrast.models.contrast.pair_weights import area_weights, iou_weights, jitter_rois

SIZE = (100, 150)
SAMPLES = [DetDataSample(metainfo=dict(img_shape=SIZE)) for _ in range(2)]


def make_rois(count=50):
    start = torch.rand(count, 2) * torch.tensor([100.0, 60.0])
    boxes = torch.cat((start, start + 5 + torch.rand(count, 2) * 35), dim=1)
    return torch.cat((torch.randint(2, (count, 1)).float(), boxes), dim=1)


def iou(first, second):
    """Of two boxes, readably."""
    x = max(0, min(first[2], second[2]) - max(first[0], second[0]))
    y = max(0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    return x * y / (sum(areas) - x * y)


@pytest.mark.parametrize('share', [0.1, 0.49])
def test_jitter_moves_every_corner_within_its_share_and_the_image(share):
    rois = make_rois()
    moved = jitter_rois(rois, share, SAMPLES)
    assert torch.equal(moved[:, 0], rois[:, 0])
    sides = (rois[:, 3:] - rois[:, 1:3]).repeat(1, 2)
    shift = (moved - rois)[:, 1:].abs() / sides
    assert shift.max() <= share + 1e-5 and shift.max() > 0.9 * share
    # each coordinate by itself
    assert len(set(shift.flatten().tolist())) > 0.8 * shift.numel()
    assert (moved[:, 3:] > moved[:, 1:3]).all() and (moved[:, 1:] >= 0).all()
    assert (moved[:, 3] <= SIZE[1]).all() and (moved[:, 4] <= SIZE[0]).all()


def test_no_jitter():
    rois = make_rois()
    assert jitter_rois(rois, 0, SAMPLES) is rois
    assert len(jitter_rois(rois[:0], 0.2, SAMPLES)) == 0


def test_iou_weights():
    query, key = make_rois()[:, 1:], make_rois()[:, 1:]
    moved = [x + torch.rand_like(x) * 4 - 2 for x in (query, key)]
    weights = iou_weights(query, moved[0], key, moved[1])
    for i, weight in enumerate(weights):
        first, second = (iou(a[i].tolist(), b[i].tolist()) for a, b in zip(moved, (query, key)))
        assert weight.item() == pytest.approx(first * second, abs=1e-5)
    torch.testing.assert_close(iou_weights(query, query, key, key), torch.ones(len(query)))
    assert iou_weights(*[query[:0]] * 4).shape == (0,)


def test_area_weights():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 35], [0, 0, 20, 10], [0, 0, 1, 1]])
    mean = (100 + 300 + 200 + 1) / 4
    expected = torch.tensor([100 / mean, 300 / mean, 200 / mean, 0.1])
    torch.testing.assert_close(area_weights(boxes), expected)
    assert area_weights(boxes[:0]).shape == (0,)
    assert area_weights(torch.zeros(2, 4)).tolist() == pytest.approx([0.1, 0.1])
