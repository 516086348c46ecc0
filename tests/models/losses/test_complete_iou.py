import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_contrast.models.losses import YOLOCIoULoss, complete_iou


def by_hand(first, second):
    """CIoU of two boxes, term by term as in arXiv 1911.08287."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = first, second
    overlap = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - overlap
    iou = overlap / union
    d2 = ((ax1 + ax2 - bx1 - bx2) / 2) ** 2 + ((ay1 + ay2 - by1 - by2) / 2) ** 2
    c2 = (max(ax2, bx2) - min(ax1, bx1)) ** 2 + (max(ay2, by2) - min(ay1, by1)) ** 2
    angle = math.atan((ax2 - ax1) / (ay2 - ay1)) - math.atan((bx2 - bx1) / (by2 - by1))
    v = 4 / math.pi**2 * angle**2
    alpha = v / (1 - iou + v) if v else 0
    return iou - d2 / c2 - alpha * v


boxes = st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(1, 60), st.floats(1, 60)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@settings(deadline=None)
@given(boxes, boxes)
def test_equals_the_formula(first, second):
    ours = complete_iou(torch.tensor(first).double(), torch.tensor(second).double())
    assert ours.item() == pytest.approx(by_hand(first, second), abs=1e-5)


def test_differs_from_mmdetection_below_an_iou_of_a_half():
    from mmdet.models.losses import CIoULoss

    first = torch.tensor([[0.0, 0.0, 10.0, 40.0]])
    second = torch.tensor([[5.0, 0.0, 45.0, 10.0]])
    ours = YOLOCIoULoss()(first, second)
    assert abs(ours - CIoULoss()(first, second)) > 0.05
    assert ours.item() == pytest.approx(
        1 - by_hand(first[0].tolist(), second[0].tolist()), abs=1e-5
    )


def test_equal_and_empty_boxes_are_finite_with_their_gradients():
    same = torch.tensor([[1.0, 2.0, 5.0, 9.0], [3.0, 3.0, 3.0, 3.0]], requires_grad=True)
    value = complete_iou(same, same.detach())
    value.sum().backward()
    assert value[0].item() == pytest.approx(1, abs=1e-5)
    assert value.isfinite().all()
    assert same.grad.isfinite().all()


def test_no_box_is_a_connected_zero():
    pred = torch.zeros(0, 4, requires_grad=True)
    loss = YOLOCIoULoss()(pred, torch.zeros(0, 4), weight=torch.zeros(0), avg_factor=1)
    loss.backward()
    assert loss.item() == 0
    assert pred.grad.shape == (0, 4)


def test_weights_and_divisor():
    pred = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 8.0, 4.0]])
    target = torch.tensor([[1.0, 0.0, 4.0, 4.0], [0.0, 1.0, 8.0, 4.0]])
    terms = 1 - complete_iou(pred, target)
    assert YOLOCIoULoss()(pred, target).item() == pytest.approx(terms.mean().item())
    loss = YOLOCIoULoss(loss_weight=2)(pred, target, weight=torch.tensor([0.5, 0.25]), avg_factor=3)
    assert loss.item() == pytest.approx(2 * (0.5 * terms[0] + 0.25 * terms[1]).item() / 3)
    # as the anchor heads give them
    wide = torch.tensor([[0.5], [0.25]]).expand(2, 4)
    again = YOLOCIoULoss(loss_weight=2)(pred, target, weight=wide, avg_factor=3)
    torch.testing.assert_close(again, loss)
