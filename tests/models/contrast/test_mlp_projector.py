"""The projector of region embeddings."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_contrast.models.contrast import MLPProjector


def test_layers_are_those_of_the_formula():
    projector = MLPProjector(12, hidden_channels=6, out_channels=4)
    first, _, last = projector.layers
    x = torch.randn(5, 12)
    torch.testing.assert_close(projector(x), last((first(x)).clamp(min=0)))


def test_normalises_the_hidden_layer_before_its_relu():
    projector = MLPProjector(12, hidden_channels=6, out_channels=4, norm_cfg=dict(type='LN'))
    first, norm, relu, last = projector.layers
    assert isinstance(norm, nn.LayerNorm) and isinstance(relu, nn.ReLU)
    x = torch.randn(5, 12)
    hidden = first(x)
    hidden = (hidden - hidden.mean(1, keepdim=True)) / hidden.std(1, unbiased=False, keepdim=True)
    torch.testing.assert_close(projector(x), last(hidden.clamp(min=0)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('norm_cfg', [None, dict(type='LN')])
def test_no_region_is_no_error(norm_cfg):
    projector = MLPProjector(12, out_channels=4, norm_cfg=norm_cfg)
    out = projector(torch.zeros(0, 12))
    assert out.shape == (0, 4)
    out.sum().backward()
    assert all(p.grad is not None for p in projector.parameters())


def test_a_normalised_layer_survives_a_far_step():
    """A step that carries all units below 0 kills them for good, unless they are normalised."""
    alive = {}
    for name, norm_cfg in (('none', None), ('LN', dict(type='LN'))):
        projector = MLPProjector(64, 16, 8, norm_cfg=norm_cfg)
        with torch.no_grad():
            projector.layers[0].weight.sub_(1.0)
        x = torch.rand(10, 64)
        F.normalize(projector(x), dim=1)[:, 0].sum().backward()
        alive[name] = bool(projector.layers[0].weight.grad.abs().sum() > 0)
    assert alive == dict(none=False, LN=True)
