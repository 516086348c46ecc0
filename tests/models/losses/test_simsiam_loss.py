import pytest
import torch
from readable_losses import with_background
from torch import nn

from mmdet_contrast.models.losses import SimSiamLoss, negative_cosine


def readable_loop(predict, query, key):
    """The published loss, one pair at a time, with constant targets."""
    total = 0.0
    for q, k in zip(query, key):
        for source, target in ((q, k), (k, q)):
            p, z = predict(source), target.detach()
            total = total - 0.5 * (p @ z) / (p.norm() * z.norm())
    return total / len(query)


def make(count):
    query, key = torch.randn(2, count, 8, dtype=torch.double)
    loss = SimSiamLoss(8, loss_weight=1.0).double()
    return loss, query.requires_grad_(), key.requires_grad_()


@pytest.mark.parametrize('count', [1, 2, 9])
def test_equals_readable_loop(count):
    loss, query, key = make(count)
    value, expected = loss(query, key), readable_loop(loss.predictor, query, key)
    torch.testing.assert_close(value, expected)
    inputs = (query, key, *loss.parameters())
    torch.testing.assert_close(*(torch.autograd.grad(x, inputs) for x in (value, expected)))


@pytest.mark.parametrize('count', [1, 16, 100])
def test_equals_lightly_with_a_detached_target(count):
    loss = pytest.importorskip('lightly.loss', reason='the reference')
    ours, query, key = make(count)
    theirs = loss.NegativeCosineSimilarity()
    p, r = ours.predictor(query), ours.predictor(key)
    expected = 0.5 * (theirs(p, key.detach()) + theirs(r, query.detach()))
    value = ours(query, key)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, query)[0] for x in (value, expected)))
    torch.testing.assert_close(negative_cosine(query, key).mean(), theirs(query, key))


def test_gradient_comes_through_the_predictor_alone():
    loss, query, key = make(3)
    nn.init.zeros_(loss.predictor[-1].weight)
    loss(query, key).backward()
    # the targets would have a gradient even where the predictor lets none through
    assert query.grad.abs().sum() == 0 and key.grad.abs().sum() == 0


def test_labels_groups_and_background_do_not_matter():
    loss, query, key = make(4)
    background = torch.randn(2, 8, dtype=torch.double)
    labels = torch.tensor([0, 1, 0, -1])
    call = (query, key, labels, labels, background, torch.ones(4, 2, dtype=torch.bool))
    torch.testing.assert_close(with_background(loss, *call), loss(query, key))


@pytest.mark.parametrize('shape', [(4,), (3, 4), (2, 3, 4), (0, 4)])
def test_negative_cosine(shape):
    p, z = (x.requires_grad_() for x in torch.randn(2, *shape, dtype=torch.double))
    values = negative_cosine(p, z)
    assert values.shape == shape[:-1]
    for value, a, b in zip(values.flatten(), p.view(-1, 4), z.view(-1, 4)):
        torch.testing.assert_close(value, -(a @ b) / (a.norm() * b.norm()))
    values.sum().backward()
    assert p.grad is not None and z.grad is None
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert negative_cosine(p.bfloat16(), z.bfloat16()).dtype == torch.float32
