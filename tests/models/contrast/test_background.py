import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_contrast.models.contrast.background import sample_background

CPU = torch.device('cpu')


def make(boxes, shape, ignored=()):
    sample = DetDataSample(metainfo=dict(img_shape=shape))
    sample.gt_instances = InstanceData(bboxes=torch.as_tensor(boxes).float().view(-1, 4))
    if len(ignored):
        sample.ignored_instances = InstanceData(bboxes=ignored)
    return sample


def touches(first, second):
    return (
        first[0] <= second[2]
        and first[2] >= second[0]
        and first[1] <= second[3]
        and first[3] >= second[1]
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10), st.integers(0, 3), st.integers(0, 1000))
def test_free_regions_touch_nothing_and_all_stay_inside(count, ignored, seed):
    torch.manual_seed(seed)
    start = torch.rand(count, 2) * 150
    boxes = torch.cat((start, start + 5 + torch.rand(count, 2) * 60), dim=1)
    shapes = ((150, 200), (64, 64))
    samples = [make(boxes[ignored:], shapes[0], boxes[:ignored]), make([], shapes[1])]
    rois, free = sample_background(samples, (0, 7), 5, CPU)
    assert rois.shape == (10, 5) and rois[:, 0].tolist() == [0] * 5 + [7] * 5
    for i, (image, *box) in enumerate(rois.tolist()):
        height, width = shapes[image > 0]
        assert 0 <= box[0] < box[2] <= width + 1e-3 and 0 <= box[1] < box[3] <= height + 1e-3
        if free[i] and image == 0:
            assert not any(touches(box, other) for other in boxes.tolist())
    assert free[5:].all()


def test_sides_are_those_of_the_objects_of_the_batch():
    samples = [make([[10, 10, 50, 90], [60, 10, 160, 50]], (500, 600)), make([], (300, 60))]
    rois, _ = sample_background(samples, (0, 1), 200, CPU)
    sides = (rois[:, 3:] - rois[:, 1:3]).view(2, 200, 2)
    # from a quarter of 40 to 100 in width, to 80 in height, and no more than the image has
    for got, (width, height) in zip(sides, ((100, 80), (60, 80))):
        for values, most in zip(got.T, (width, height)):
            assert 10 - 1e-3 <= values.min() < 12 and 0.8 * most < values.max() <= most + 1e-3


def test_image_that_one_object_fills_has_no_background():
    samples = [make([0, 0, 100, 80], (80, 100)), make([10, 10, 20, 20], (80, 100))]
    _, free = sample_background(samples, (0, 1), 4, CPU)
    assert free.tolist() == [False] * 4 + [True] * 4


def test_order_of_objects_does_not_matter():
    boxes, out = torch.tensor([[10.0, 10, 40, 30], [60, 50, 75, 90], [5, 60, 30, 75]]), []
    for order in ([0, 1, 2], [2, 0, 1]):
        torch.manual_seed(0)
        out.append(sample_background([make(boxes[order], (100, 100))], (0,), 4, CPU))
    assert all(torch.equal(a, b) for a, b in zip(*out))
