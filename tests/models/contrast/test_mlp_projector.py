import pytest
import torch
import torch.nn.functional as F

from mmdet_contrast.models.contrast import MLPProjector


@pytest.mark.parametrize('num_levels', [None, 3])
@pytest.mark.parametrize('count', [0, 4])
def test_equals_a_perceptron_for_each_level(num_levels, count):
    module = MLPProjector(7, 6, 5, num_levels)
    x = torch.randn(3, count, 7, requires_grad=True)
    out = module(x)
    assert out.shape == (3, count, 5)
    for level, (rows, ours) in enumerate(zip(x, out)):
        hidden, last = (
            layers[level if num_levels else 0] for layers in (module.hidden, module.out)
        )
        theirs = F.linear(F.linear(rows, hidden.weight, hidden.bias).relu(), last.weight, last.bias)
        torch.testing.assert_close(ours, theirs)
    out.sum().backward()
    assert all(p.grad is not None for p in (x, *module.parameters()))
    if num_levels is None:
        torch.testing.assert_close(module(x[0]), out[0])


@pytest.mark.parametrize('num_levels', [None, 3])
def test_mixed_precision(num_levels):
    module, x = MLPProjector(7, 6, 5, num_levels), torch.randn(3, 4, 7)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = module(x.half())
    torch.testing.assert_close(out.float(), module(x), atol=0.1, rtol=0.1)
