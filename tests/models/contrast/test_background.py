import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample

from mmdet_contrast.models.contrast.background import sample_background


def draw(boxes, shapes, count, positions=(0, 1)):
    """Draw regions in images of these shapes with boxes (G_i, 4)."""
    samples = [DetDataSample(metainfo=dict(img_shape=shape)) for shape in shapes]
    objects = [
        torch.tensor([position, *box], dtype=torch.float32)
        for position, own in zip(positions, boxes)
        for box in own
    ]
    objects = torch.stack(objects) if objects else torch.zeros(0, 5)
    return sample_background(samples, positions[: len(samples)], objects, count)


def touches(first, second):
    return (
        first[0] <= second[2]
        and first[2] >= second[0]
        and first[1] <= second[3]
        and first[3] >= second[1]
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10), st.integers(0, 1000))
def test_free_regions_touch_nothing_and_all_stay_inside(count, seed):
    torch.manual_seed(seed)
    start = torch.rand(count, 2) * 150
    boxes = torch.cat((start, start + 5 + torch.rand(count, 2) * 60), dim=1)
    shapes = ((150, 200), (64, 64))
    rois, free = draw([boxes.tolist(), []], shapes, 5, positions=(0, 7))
    assert rois.shape == (10, 5) and rois[:, 0].tolist() == [0] * 5 + [7] * 5
    for i, (image, *box) in enumerate(rois.tolist()):
        height, width = shapes[image > 0]
        assert 0 <= box[0] < box[2] <= width + 1e-3 and 0 <= box[1] < box[3] <= height + 1e-3
        if free[i] and image == 0:
            assert not any(touches(box, other) for other in boxes.tolist())
    assert free[5:].all()


def test_sides_are_those_of_the_objects_of_the_batch():
    boxes = [[[10, 10, 50, 90], [60, 10, 160, 50]], []]
    rois, _ = draw(boxes, ((500, 600), (300, 60)), 200)
    sides = (rois[:, 3:] - rois[:, 1:3]).view(2, 200, 2)
    # from a quarter of 40 to 100 in width, to 80 in height, and no more than the image has
    for got, (width, height) in zip(sides, ((100, 80), (60, 80))):
        for values, most in zip(got.T, (width, height)):
            assert 10 - 1e-3 <= values.min() < 12 and 0.8 * most < values.max() <= most + 1e-3


def test_image_that_one_object_fills_has_no_background():
    _, free = draw([[[0, 0, 100, 80]], [[10, 10, 20, 20]]], ((80, 100), (80, 100)), 4)
    assert free.tolist() == [False] * 4 + [True] * 4


def test_order_of_objects_does_not_matter():
    boxes, out = [[10, 10, 40, 30], [60, 50, 75, 90], [5, 60, 30, 75]], []
    for order in ([0, 1, 2], [2, 0, 1]):
        torch.manual_seed(0)
        out.append(draw([[boxes[i] for i in order]], ((100, 100),), 4))
    assert all(torch.equal(a, b) for a, b in zip(*out))
