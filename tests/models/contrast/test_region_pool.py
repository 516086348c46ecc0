import pytest
import torch
from mmcv.ops import roi_align

from mmdet_contrast.models.contrast import pool_regions


def random_rois(count, batch, width, height, generator):
    start = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) - 10
    size = torch.rand(count, 2, generator=generator) ** 3 * torch.tensor([width, height])
    index = torch.randint(batch, (count, 1), generator=generator).float()
    return torch.cat((index, start, start + size), dim=1)


def interpolate(feat, y, x):
    """RoIAlign's sample of a map (C, H, W): zero outside, the border's value up to one cell out."""
    height, width = feat.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros_like(feat[:, 0, 0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    ly, lx = y - y0, x - x0
    top = (1 - lx) * feat[:, y0, x0] + lx * feat[:, y0, x1]
    return (1 - ly) * top + ly * ((1 - lx) * feat[:, y1, x0] + lx * feat[:, y1, x1])


def readable_loop(feat, rois, stride, size, ratio):
    """RoIAlign, one sample at a time."""
    out = torch.zeros(len(rois), feat.shape[1], size, size, dtype=feat.dtype)
    for r, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (v / stride - 0.5 for v in box)
        for i in range(size * ratio):
            for j in range(size * ratio):
                y = y1 + (i + 0.5) * (y2 - y1) / (size * ratio)
                x = x1 + (j + 0.5) * (x2 - x1) / (size * ratio)
                out[r, :, i // ratio, j // ratio] += interpolate(feat[int(image)], y, x) / ratio**2
    return out.flatten(1)


@pytest.mark.parametrize('size, ratio', [(1, 1), (3, 2), (2, 3)])
@pytest.mark.parametrize('by_level', [False, True])
def test_equals_readable_loop_and_roi_align(size, ratio, by_level):
    generator = torch.Generator().manual_seed(0)
    strides, channels = (8, 16, 128), (3, 5, 4)
    feats = [
        torch.randn(3, c, -(-200 // s), -(-320 // s), generator=generator).double()
        for c, s in zip(channels, strides)
    ]
    # regions beyond the border and smaller than a cell among them
    rois = torch.stack(
        [random_rois(9, 3, 320, 200, generator) for _ in strides[:: 1 if by_level else 3]]
    )
    ours = pool_regions(feats, rois, strides, size, ratio)
    assert ours.shape == (3, 9, 5 * size**2)
    for i, (feat, stride) in enumerate(zip(feats, strides)):
        regions, width = rois[i if by_level else 0], feat.shape[1] * size**2
        theirs = roi_align(feat, regions.double(), (size, size), 1 / stride, ratio, 'avg', True)
        torch.testing.assert_close(ours[i, :, :width], theirs.flatten(1))
        torch.testing.assert_close(
            ours[i, :, :width],
            readable_loop(feat, regions, stride, size, ratio),
            atol=1e-5,
            rtol=1e-4,
        )
        assert (ours[i, :, width:] == 0).all()


def test_no_region_is_connected():
    feat = torch.randn(2, 4, 6, 6, requires_grad=True)
    out = pool_regions([feat], torch.zeros(1, 0, 5), (8,), 7)
    assert out.shape == (1, 0, 196)
    out.sum().backward()
    assert feat.grad.abs().sum() == 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_float32(dtype):
    feat = torch.randn(1, 4, 6, 6).to(dtype).requires_grad_()
    rois = torch.tensor([[[0, 3.0, 2.0, 30.0, 25.0]]])
    out = pool_regions([feat], rois, (8,), 3)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, pool_regions([feat.detach().float()], rois, (8,), 3))
    out.sum().backward()
    assert feat.grad.dtype == dtype
