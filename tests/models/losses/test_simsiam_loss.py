import pytest
import torch
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


def make(count, **kwargs):
    query, key = torch.randn(2, count, 8, dtype=torch.double)
    return SimSiamLoss(8, **kwargs).double(), query.requires_grad_(), key.requires_grad_()


@pytest.mark.parametrize('count', [1, 2, 9])
@pytest.mark.parametrize('norm', [None, 'LN'])
def test_equals_readable_loop(count, norm):
    loss, query, key = make(count, norm=norm)
    value, expected = loss(query, key), readable_loop(loss.predictor, query, key)
    torch.testing.assert_close(value, expected)
    inputs = (query, key, *loss.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs)
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('count', [1, 16, 100])
def test_equals_lightly_with_a_detached_target(count):
    loss = pytest.importorskip('lightly.loss', reason='the reference')
    ours, query, key = make(count, hidden_channels=5)
    theirs = loss.NegativeCosineSimilarity()
    p, r = ours.predictor(query), ours.predictor(key)
    expected = 0.5 * (theirs(p, key.detach()) + theirs(r, query.detach()))
    value = ours(query, key)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, query)[0], torch.autograd.grad(expected, query)[0]
    )
    torch.testing.assert_close(negative_cosine(query, key), theirs(query, key))


def test_lightly_alone_does_not_detach():
    loss = pytest.importorskip('lightly.loss', reason='the reference')
    p, z = (x.requires_grad_() for x in torch.randn(2, 4, 8))
    loss.NegativeCosineSimilarity()(p, z).backward()
    assert z.grad is not None
    z.grad = None
    negative_cosine(p, z).backward()
    assert z.grad is None


def test_gradient_comes_through_the_predictor_alone():
    loss, query, key = make(3)
    nn.init.zeros_(loss.predictor[-1].weight)
    loss(query, key).backward()
    # the targets would have a gradient even where the predictor lets none through
    assert query.grad.abs().sum() == 0 and key.grad.abs().sum() == 0


def test_identity_predictor_reaches_minus_one():
    loss, query, _ = make(3)
    loss.predictor = nn.Sequential(nn.Linear(8, 8, bias=False).double())
    loss.predictor[0].weight.data = torch.eye(8, dtype=torch.double)
    assert loss(query, 3 * query).item() == pytest.approx(-1)
    assert loss(query, -query).item() == pytest.approx(1)


def test_labels_groups_and_background_do_not_matter():
    loss, query, key = make(4)
    background = torch.randn(2, 8, dtype=torch.double, requires_grad=True)
    labels = torch.tensor([0, 1, 0, -1])
    value = loss(query, key, labels, labels, background=background)
    torch.testing.assert_close(value, loss(query, key))
    value.backward()
    assert background.grad is None


@pytest.mark.parametrize('count', [1, 5])
def test_batch_norm(count):
    loss, query, key = make(count, norm='BN')
    value = loss(query, key)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(query.grad).all()
    reference = nn.Sequential(
        loss.predictor[0], nn.BatchNorm1d(2).double(), nn.ReLU(), loss.predictor[3]
    )
    predicted = reference(torch.cat((query, key)))
    expected = negative_cosine(predicted, torch.cat((key, query)))
    torch.testing.assert_close(value, expected)
    # processes without a pair would keep a synchronised one waiting
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(loss)
    assert not any(isinstance(x, nn.SyncBatchNorm) for x in converted.modules())


def test_negative_cosine():
    p, z = (x.requires_grad_() for x in torch.randn(2, 3, 4, dtype=torch.double))
    rows = negative_cosine(p, z, reduction='none')
    for row, a, b in zip(rows, p, z):
        torch.testing.assert_close(row, -(a @ b) / (a.norm() * b.norm()))
    torch.testing.assert_close(negative_cosine(p, z), rows.mean())
    nothing = negative_cosine(p[:0], z[:0])
    nothing.backward()
    assert nothing.item() == 0 and p.grad.abs().sum() == 0
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert negative_cosine(p.bfloat16(), z.bfloat16()).dtype == torch.float32


def test_refuses():
    with pytest.raises(ValueError, match=r"norm='GN', one of \(None, 'LN', 'BN'\)"):
        SimSiamLoss(norm='GN')
    with pytest.raises(ValueError, match='hidden_channels=0, at least 1'):
        SimSiamLoss(8, 0)
    with pytest.raises(ValueError, match='of length 128 and got 8: set criterion.in_channels'):
        SimSiamLoss()(torch.randn(2, 8), torch.randn(2, 8))
    with pytest.raises(ValueError, match=r'p of shape \(2, 8\) and z of shape \(2, 4\)'):
        negative_cosine(torch.randn(2, 8), torch.randn(2, 4))
    with pytest.raises(ValueError, match="reduction='sum'"):
        negative_cosine(torch.randn(2, 8), torch.randn(2, 8), 'sum')
