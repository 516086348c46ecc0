import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_contrast.models.contrast import sample_background_boxes


def touches(first, second):
    return (
        first[0] <= second[2]
        and first[2] >= second[0]
        and first[1] <= second[3]
        and first[3] >= second[1]
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10), st.integers(0, 1000))
def test_boxes_touch_nothing_and_stay_inside(count, seed):
    torch.manual_seed(seed)
    start = torch.rand(count, 2) * 150
    occupied = [torch.cat((start, start + 5 + torch.rand(count, 2) * 60), dim=1), torch.zeros(0, 4)]
    sampled = sample_background_boxes(occupied, [(150, 200), (64, 64)], 5)
    for boxes, taken, (height, width) in zip(sampled, occupied, [(150, 200), (64, 64)]):
        assert len(boxes) <= 5
        for box in boxes.tolist():
            assert 0 <= box[0] < box[2] <= width + 1e-3 and 0 <= box[1] < box[3] <= height + 1e-3
            assert not any(touches(box, other) for other in taken.tolist())
    assert len(sampled[1]) == 5


def test_image_that_one_object_fills_has_no_background():
    boxes = [torch.tensor([[0.0, 0, 100, 80]]), torch.tensor([[10.0, 10, 20, 20]])]
    full, free = sample_background_boxes(boxes, [(80, 100), (80, 100)], 4)
    assert full.shape == (0, 4) and free.shape == (4, 4)


def test_order_of_objects_does_not_matter():
    boxes = torch.tensor([[10.0, 10, 40, 30], [60, 50, 75, 90], [5, 60, 30, 75]])
    out = []
    for order in ([0, 1, 2], [2, 0, 1]):
        torch.manual_seed(0)
        out.append(sample_background_boxes([boxes[order]], [(100, 100)], 4)[0])
    assert torch.equal(*out)


def test_no_image():
    assert sample_background_boxes([], [], 4) == []
