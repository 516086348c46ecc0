import math

import pytest
import torch

from mmdet_contrast.models.losses import BoxDistributionKLLoss


def readable_loop(student, teacher, tau, bins, weights=None):
    """Mean over the rows of (L, 4 * bins) logits, one side and one bin at a time."""
    terms = []
    for s, t in zip(student / tau, teacher / tau):
        term = 0.0
        for side in range(4):
            part = slice(side * bins, (side + 1) * bins)
            q, p = (torch.exp(x[part]) / torch.exp(x[part]).sum() for x in (s, t))
            for i in range(bins):
                term = term + p[i] * torch.log(p[i] / q[i]) / 4
        terms.append(term * tau**2)
    weights = [1] * len(terms) if weights is None else weights
    return sum(w * x for w, x in zip(weights, terms)) / len(terms)


def make(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *shape, dtype=torch.double, generator=generator).unbind()


@pytest.mark.parametrize('tau', [0.5, 1.0, 3.0])
@pytest.mark.parametrize('bins', [4, 17])
@pytest.mark.parametrize('weighted', [False, True])
def test_equals_readable_loop(tau, bins, weighted):
    student, teacher = make(5, 4 * bins)
    student.requires_grad_()
    weights = torch.rand(5, dtype=torch.double) * 2 if weighted else None
    loss = BoxDistributionKLLoss(tau, 2.0, bins)(student, teacher, weights)
    expected = 2 * readable_loop(student, teacher, tau, bins, weights)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (loss, expected)))


def test_every_layout_gives_the_same():
    student, teacher = make(2, 64, 3, 5)
    weight = torch.rand(2, 3, 5, dtype=torch.double)
    loss = BoxDistributionKLLoss()
    rows = [x.permute(0, 2, 3, 1).flatten(0, 2) for x in (student, teacher)]
    expected = loss(*rows, weight.flatten())
    torch.testing.assert_close(loss(student, teacher, weight), expected)
    flat = student.flatten(2), teacher.flatten(2), weight.flatten(1)
    torch.testing.assert_close(loss(*flat), expected)


def test_sides_do_not_compete():
    # a softmax over all channels would see one side's logits raised as a whole
    student, teacher = make(3, 64)[0], make(3, 64)[0].clone()
    teacher[:, :16] += 5
    assert BoxDistributionKLLoss()(student, teacher).item() == pytest.approx(0, abs=1e-12)


def test_hand_worked():
    # one side of four: teacher (3/4, 1/4), student (1/2, 1/2)
    teacher = torch.zeros(1, 8)
    teacher[0, 4] = math.log(3.0)
    loss = BoxDistributionKLLoss(reg_max=2)(torch.zeros(1, 8), teacher)
    assert loss.item() == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 4)


def test_finite_at_large_logits():
    student = torch.zeros(1, 8)
    student[0, ::2] = 200
    student.requires_grad_()
    loss = BoxDistributionKLLoss(reg_max=2)(student, -student)
    loss.backward()
    assert loss.item() == pytest.approx(200) and student.grad.isfinite().all()


@pytest.mark.parametrize('count, weight', [(0, None), (0, torch.zeros(0)), (3, torch.zeros(3))])
def test_nothing_is_a_connected_zero(count, weight):
    student = torch.rand(count, 64, requires_grad=True)
    loss = BoxDistributionKLLoss()(student, torch.zeros(count, 64), weight)
    loss.backward()
    assert loss.item() == 0 and student.grad is not None
