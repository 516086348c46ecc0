import math

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_contrast.models.losses import LogitsKLDivergence


def readable_loop(student, teacher, tau, mode, weights=None):
    """Mean over the rows of (L, C) logits, one class at a time."""
    terms = []
    for s, t in zip(student / tau, teacher / tau):
        term = 0.0
        p_s, p_t = (
            torch.exp(x) / (torch.exp(x).sum() if mode == 'softmax' else 1 + torch.exp(x))
            for x in (s, t)
        )
        for p, q in zip(p_t, p_s):
            term = term + p * torch.log(p / q)
            if mode == 'bernoulli':
                term = term + (1 - p) * torch.log((1 - p) / (1 - q))
        terms.append(term * tau**2)
    weights = [1] * len(terms) if weights is None else weights
    return sum(w * x for w, x in zip(weights, terms)) / len(terms)


def make(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *shape, dtype=torch.double, generator=generator).unbind()


def rows(logits):
    """Bring (N, C, H, W) to (L, C)."""
    return logits.permute(0, 2, 3, 1).flatten(0, 2)


@pytest.mark.parametrize('mode', ['bernoulli', 'softmax'])
@pytest.mark.parametrize('tau', [0.5, 1.0, 3.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_equals_readable_loop(mode, tau, weighted):
    student, teacher = make(7, 4)
    student.requires_grad_()
    weights = torch.rand(7, dtype=torch.double) if weighted else None
    loss = LogitsKLDivergence(tau, mode, loss_weight=2.0)(student, teacher, weights)
    expected = 2 * readable_loop(student, teacher, tau, mode, weights)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (loss, expected)))


@pytest.mark.parametrize('mode', ['bernoulli', 'softmax'])
def test_every_layout_gives_the_same(mode):
    student, teacher = make(2, 4, 3, 5)
    weight = torch.rand(2, 3, 5, dtype=torch.double)
    loss = LogitsKLDivergence(mode=mode)
    for w in (None, weight):
        expected = loss(rows(student), rows(teacher), None if w is None else w.flatten())
        torch.testing.assert_close(loss(student, teacher, w), expected)
        flat = student.flatten(2), teacher.flatten(2), None if w is None else w.flatten(1)
        torch.testing.assert_close(loss(*flat), expected)


def test_hand_worked():
    # 1/2 against 3/4
    student, teacher = torch.tensor([[math.log(3.0)]]), torch.zeros(1, 1)
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert LogitsKLDivergence()(student, teacher).item() == pytest.approx(expected)
    # two classes: the softmax of (log 3, 0) is (3/4, 1/4)
    student = torch.tensor([[math.log(3.0), 0.0]])
    loss = LogitsKLDivergence(mode='softmax')
    assert loss(student, torch.zeros(1, 2)).item() == pytest.approx(expected)


def test_only_bernoulli_sees_the_level():
    teacher = make(50, 10)[0]
    assert LogitsKLDivergence(mode='softmax')(teacher + 4, teacher).item() < 1e-8
    assert LogitsKLDivergence()(teacher + 4, teacher).item() > 1


@pytest.mark.parametrize('mode', ['bernoulli', 'softmax'])
def test_finite_at_large_logits(mode):
    student = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    teacher = -student.detach()
    loss = LogitsKLDivergence(mode=mode)(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(400)
    torch.testing.assert_close(student.grad, torch.tensor([[-1.0, 1.0]]))
    assert LogitsKLDivergence(mode=mode)(teacher, teacher).item() == 0


def test_a_divisor_of_ones_own():
    student, teacher = make(6, 3)
    loss = LogitsKLDivergence()
    expected = loss(student, teacher) * 6 / 4
    torch.testing.assert_close(loss(student, teacher, avg_factor=torch.tensor(4.0)), expected)
    weights = torch.full((6,), 0.5, dtype=torch.double)
    found = loss(student, teacher, weights, avg_factor=torch.tensor(2.0))
    torch.testing.assert_close(found, expected)


def test_mixed_precision_is_computed_in_float32():
    student, teacher = (x.bfloat16() for x in make(4, 3))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = LogitsKLDivergence(mode='softmax')(student, teacher)
    assert loss.dtype == torch.float
    expected = LogitsKLDivergence(mode='softmax')(student.float(), teacher.float())
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('mode', ['bernoulli', 'softmax'])
@pytest.mark.parametrize('weights', [None, torch.zeros(0)])
def test_nothing_is_a_connected_zero(mode, weights):
    student = torch.zeros(0, 3, requires_grad=True)
    loss = LogitsKLDivergence(mode=mode)(student, torch.zeros(0, 3), weights)
    loss.backward()
    assert loss.item() == 0 and student.grad is not None


def test_what_would_be_compared_silently_is_refused():
    with pytest.raises(ValueError, match="mode='sigmoid'.*bernoulli"):
        LogitsKLDivergence(mode='sigmoid')
    loss = MODELS.build(dict(type='LogitsKLDivergence'))
    five, one = torch.zeros(2, 5, 3, 3), torch.zeros(2, 1, 3, 3)
    # a single class, or the weights of one image, would be broadcast
    for given in ((five, one), (five, five, torch.zeros(1, 3, 3)), (five, five, one)):
        with pytest.raises(ValueError, match=r'logits of one shape .* expected'):
            loss(*given)
