import math

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from mmdet_contrast.models.losses import ChannelWiseDivergence, channel_wise_divergence


def readable_loop(student, teacher, tau):
    """Compute the divergence one channel of one image and one position at a time."""
    total = 0.0
    for s_image, t_image in zip(student, teacher):
        for s, t in zip(s_image, t_image):
            s, t = (x.flatten() / tau for x in (s, t))
            p_s, p_t = (torch.exp(x) / torch.exp(x).sum() for x in (s, t))
            for i in range(len(p_t)):
                total = total + p_t[i] * (torch.log(p_t[i]) - torch.log(p_s[i]))
    return total * tau**2 / (student.shape[0] * student.shape[1])


def published_formula(student, teacher, tau):
    """Compute the formula that MMRazor documents, as plain expressions."""
    count, channels = student.shape[:2]
    s, t = (x.flatten(2) / tau for x in (student, teacher))
    log_s, log_t = F.log_softmax(s, dim=2), F.log_softmax(t, dim=2)
    return (F.softmax(t, dim=2) * (log_t - log_s)).sum() * tau**2 / (channels * count)


def make(*shape, dtype=torch.double):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *shape, dtype=dtype, generator=generator).mul_(2).unbind()


@pytest.mark.parametrize(
    'tau, shape', [(0.5, (1, 1, 2, 2)), (1.0, (2, 3, 4, 5)), (4.0, (3, 7, 1, 6))]
)
def test_equals_readable_loop(tau, shape):
    student, teacher = make(*shape)
    student.requires_grad_()
    loss = ChannelWiseDivergence(tau, loss_weight=3.0)(student, teacher)
    expected = 3 * readable_loop(student, teacher, tau)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, student, retain_graph=True)[0] for x in (loss, expected))
    )


@pytest.mark.parametrize('tau, shape', [(1.0, (2, 16, 40, 40)), (3.0, (4, 64, 13, 21))])
def test_equals_published_formula(tau, shape):
    student, teacher = make(*shape, dtype=torch.float)
    student.requires_grad_()
    loss = ChannelWiseDivergence(tau)(student, teacher)
    expected = published_formula(student, teacher, tau)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, student)[0] for x in (loss, expected)), atol=1e-8, rtol=1e-4
    )


def test_equal_maps_give_exactly_zero():
    student = make(2, 3, 8, 8, dtype=torch.float)[0].requires_grad_()
    loss = ChannelWiseDivergence()(student, student)
    assert loss.item() == 0
    loss.backward()
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize('size', [1, 50, 100])
def test_slices_give_the_same(size, monkeypatch):
    student, teacher = make(2, 5, 4, 5)
    student.requires_grad_()
    results = []
    for elements in (size, 2**20):
        monkeypatch.setattr(channel_wise_divergence, '_SLICE', elements)
        loss = ChannelWiseDivergence(2.0)(student, teacher)
        results.append((loss, *torch.autograd.grad(loss, student)))
    torch.testing.assert_close(*results)


def test_finite_at_large_logits():
    teacher = torch.zeros(1, 1, 2, 2)
    teacher[..., 0, 0] = 200
    # minus the logarithm of the student's share of the teacher's only position
    for student, expected in ((-teacher, 200 + math.log(3)), (teacher.roll(1, -1), 200)):
        student = student.clone().requires_grad_()
        loss = ChannelWiseDivergence()(student, teacher)
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert student.grad[0, 0, 0, 0] == -1 and student.grad.isfinite().all()


def test_teacher_gets_no_gradient():
    student, teacher = (x.requires_grad_() for x in make(1, 2, 3, 3))
    ChannelWiseDivergence()(student, teacher).backward()
    assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.half])
def test_mixed_precision_is_computed_in_float32(dtype):
    student, teacher = (x.to(dtype) for x in make(2, 3, 8, 8))
    student.requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = ChannelWiseDivergence()(student, teacher)
    assert loss.dtype == torch.float
    torch.testing.assert_close(loss, ChannelWiseDivergence()(student.float(), teacher.float()))
    loss.backward()
    assert student.grad.dtype == dtype


@pytest.mark.parametrize('shape', [(0, 3, 4, 4), (2, 3, 0, 4)])
def test_nothing_is_a_connected_zero(shape):
    student = torch.zeros(shape, requires_grad=True)
    loss = ChannelWiseDivergence()(student, torch.zeros(shape))
    loss.backward()
    assert loss.item() == 0 and student.grad is not None


def test_maps_of_other_shapes_are_refused():
    loss = MODELS.build(dict(type='ChannelWiseDivergence'))
    with pytest.raises(ValueError, match=r'\(1, 2, 4, 4\) and \(1, 3, 4, 4\)'):
        loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))
