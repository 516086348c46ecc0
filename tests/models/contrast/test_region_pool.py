import pytest
import torch
from mmcv.ops import roi_align

from mmdet_contrast.models.contrast import pool_regions


def random_rois(count, batch, width, height, generator):
    start = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) - 10
    size = torch.rand(count, 2, generator=generator) ** 3 * torch.tensor([width, height])
    index = torch.randint(batch, (count, 1), generator=generator).float()
    return torch.cat((index, start, start + size), dim=1)


@pytest.mark.parametrize('output_size', [1, 3, 7])
@pytest.mark.parametrize('sampling_ratio', [1, 2, 3])
@pytest.mark.parametrize('stride', [8, 16, 128])
def test_equals_roi_align(output_size, sampling_ratio, stride):
    generator = torch.Generator().manual_seed(stride)
    feat = torch.randn(3, 5, -(-200 // stride), -(-320 // stride), generator=generator)
    feat = feat.double().requires_grad_()
    # boxes beyond the border and smaller than a cell among them
    rois = random_rois(40, 3, 320, 200, generator).double()
    ours = pool_regions(feat, rois, output_size, stride, sampling_ratio)
    theirs = roi_align(
        feat, rois, (output_size, output_size), 1 / stride, sampling_ratio, 'avg', True
    )
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(ours.shape, dtype=ours.dtype, generator=generator)
    gradients = [torch.autograd.grad((out * weight).sum(), feat)[0] for out in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_gradcheck():
    feat = torch.randn(2, 2, 4, 5, dtype=torch.double, requires_grad=True)
    rois = torch.tensor([[0, 3.0, 2.0, 30.0, 25.0], [1, 0.0, 0.0, 40.0, 32.0]])
    assert torch.autograd.gradcheck(lambda x: pool_regions(x, rois, 2, 8), feat)


def test_no_region_is_connected():
    feat = torch.randn(2, 4, 6, 6, requires_grad=True)
    out = pool_regions(feat, torch.zeros(0, 5), 7, 8)
    assert out.shape == (0, 4, 7, 7)
    out.sum().backward()
    assert feat.grad.abs().sum() == 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_float32(dtype):
    feat = torch.randn(1, 4, 6, 6).to(dtype).requires_grad_()
    rois = torch.tensor([[0, 3.0, 2.0, 30.0, 25.0]])
    out = pool_regions(feat, rois, 3, 8)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, pool_regions(feat.detach().float(), rois, 3, 8))
    out.sum().backward()
    assert feat.grad.dtype == dtype


def test_channels_last_gives_the_same():
    feat = torch.randn(2, 4, 6, 6)
    rois = torch.tensor([[1, 3.0, 2.0, 30.0, 25.0]])
    out = pool_regions(feat.to(memory_format=torch.channels_last), rois, 3, 8)
    torch.testing.assert_close(out, pool_regions(feat, rois, 3, 8))
