"""SimCLR: the value of its loss, and that it shares SimSiam's checks."""

import math

import pytest
import torch
from mmengine.registry import init_default_scope

from mmdet_contrast.models.selfsup import SimCLR


@pytest.fixture
def model():
    init_default_scope('mmdet')
    return SimCLR(
        backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(3,), norm_eval=False),
        projector=dict(type='MLPProjector', in_channels=64, hidden_channels=32, out_channels=16),
        criterion=dict(type='NTXentLoss', temperature=0.5, negatives='all'),
    ).train()


def views(n=3):
    return dict(view1=torch.randn(n, 3, 32, 32), view2=torch.randn(n, 3, 32, 32))


def slow_nt_xent(z, temperature=0.5):
    """The mean over all 2N anchors; row i and row i + N are a pair."""
    n = len(z) // 2
    total = 0.0
    for i in range(2 * n):
        values = [
            math.exp(float(z[i] @ z[k]) / float(z[i].norm() * z[k].norm()) / temperature)
            for k in range(2 * n)
        ]
        total -= math.log(values[(i + n) % (2 * n)] / (sum(values) - values[i]))
    return total / (2 * n)


def test_loss_equals_a_slow_loop(model):
    data = views()
    losses = model(data, mode='loss')
    with torch.no_grad():
        z = [model.projector(model.backbone(v)[-1].mean(dim=(2, 3))) for v in data.values()]
    assert float(losses['loss_nt_xent']) == pytest.approx(slow_nt_xent(torch.cat(z)), abs=1e-5)
    assert set(losses) == {'loss_nt_xent', 'embedding_std'}


def test_equals_lightly(model):
    loss = pytest.importorskip('lightly.loss', reason='lightly is not installed')
    data = views(8)
    z = [model.projector(model.extract_feat(v)) for v in data.values()]
    expected = loss.NTXentLoss(temperature=0.5)(*z)
    torch.testing.assert_close(model(data, mode='loss')['loss_nt_xent'], expected)


def test_refuses_one_image(model):
    with pytest.raises(ValueError, match='SimCLR got a batch of 1 image'):
        model(views(1), mode='loss')


def test_refuses_one_image_without_batch_normalisation():
    """Its only other embedding is the positive: a loss of 0 that teaches nothing."""
    init_default_scope('mmdet')
    norm_cfg = dict(type='GN', num_groups=2)
    backbone = dict(type='ResNet', depth=18, base_channels=8, out_indices=(3,), norm_cfg=norm_cfg)
    model = SimCLR(
        backbone=backbone,
        projector=dict(type='MLPProjector', in_channels=64, hidden_channels=32, out_channels=16),
        criterion=dict(type='NTXentLoss', temperature=0.5, negatives='all'),
    ).train()
    with pytest.raises(ValueError, match='SimCLR got a batch of 1 image.*negatives.*batch_size'):
        model(views(1), mode='loss')


def test_one_descent_step_lowers_the_loss(model):
    data = views(8)
    before = model(data, mode='loss')['loss_nt_xent']
    before.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 1e-3 * p.grad
    assert float(model(data, mode='loss')['loss_nt_xent']) < float(before)
