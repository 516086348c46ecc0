"""Region pooling as one weighted sum of feature rows."""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def pool_regions(
    feat: Tensor, rois: Tensor, output_size: int, stride: float, sampling_ratio: int = 2
) -> Tensor:
    """Pool regions as RoIAlign does (Mask R-CNN, arXiv 1703.06870; ``aligned=True``, average).

    Equal to ``mmcv.ops.roi_align`` with a fixed ``sampling_ratio``. Each output cell is a
    weighted sum of ``(2 * sampling_ratio)**2`` feature vectors, which ``embedding_bag`` forms for
    all regions in one vectorised call: on a CPU several times faster, backward included, than the
    operator's scalar loop, in every floating-point type and without compiled operators.

    Args:
        feat (Tensor): (B, C, H, W) features.
        rois (Tensor): (K, 5) regions ``(batch index, x1, y1, x2, y2)`` in pixels of the image.
        output_size (int): Height and width P of the pooled regions.
        stride (float): Pixels of the image to a cell of the features.
        sampling_ratio (int): Samples per cell and axis, at least 1.

    Returns:
        Tensor: (K, C, P, P) in float32 or wider, differentiable in ``feat``; connected to it for
        K = 0, too.
    """
    batch, channels, height, width = feat.shape
    dtype = torch.promote_types(feat.dtype, torch.float32)
    if len(rois) == 0:
        return feat[:0].to(dtype).reshape(0, channels, output_size, output_size)
    rois = rois.to(dtype)
    corners = rois[:, 1:] / stride - 0.5
    x, x_weight = _taps(corners[:, 0], corners[:, 2], output_size, sampling_ratio, width)
    y, y_weight = _taps(corners[:, 1], corners[:, 3], output_size, sampling_ratio, height)
    image = rois[:, 0].long()[:, None, None, None, None]
    index = (image * height + y[:, :, None, :, None]) * width + x[:, None, :, None, :]
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]

    # only the cells that are read: the maps are far larger, and their layout is another one
    used = torch.zeros(batch * height * width, dtype=torch.bool, device=feat.device)
    used[index.reshape(-1)] = True
    position = used.cumsum(0) - 1
    rows = take_cells(feat, used.nonzero()[:, 0]).to(dtype)
    bag = (2 * sampling_ratio) ** 2
    pooled = F.embedding_bag(
        position[index].reshape(-1, bag),
        rows,
        per_sample_weights=weight.reshape(-1, bag),
        mode='sum',
    )
    return pooled.view(len(rois), output_size, output_size, channels).permute(0, 3, 1, 2)


def take_cells(feat: Tensor, cells: Tensor) -> Tensor:
    """Take the feature vectors of distinct cells of a feature map.

    Args:
        feat (Tensor): (B, C, H, W) features.
        cells (Tensor): (U,) distinct long indices ``(image * H + y) * W + x``.

    Returns:
        Tensor: (U, C) in the dtype of ``feat``, differentiable in it; connected for U = 0, too.
    """
    return _TakeCells.apply(feat, cells)


class _TakeCells(Function):
    """Rows (U, C) of distinct cells of a feature map; their gradient is written in one pass."""

    @staticmethod
    def forward(ctx, feat: Tensor, cells: Tensor) -> Tensor:
        ctx.shape = feat.shape
        ctx.save_for_backward(cells)
        area = feat.shape[2] * feat.shape[3]
        return feat.flatten(2)[cells // area, :, cells % area]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Tensor, None]:
        (cells,) = ctx.saved_tensors
        area = ctx.shape[2] * ctx.shape[3]
        out = grad.new_zeros(ctx.shape)
        # cells are distinct: nothing to accumulate
        out.flatten(2)[cells // area, :, cells % area] = grad
        return out, None


def _taps(
    start: Tensor, end: Tensor, cells: int, sampling_ratio: int, size: int
) -> Tuple[Tensor, Tensor]:
    """Return indices and weights (K, cells, 2 * sampling_ratio) of linear sampling on an axis."""
    samples = cells * sampling_ratio
    offset = (torch.arange(samples, device=start.device, dtype=start.dtype) + 0.5) / samples
    position = start[:, None] + (end - start)[:, None] * offset
    # RoIAlign reads zero more than a cell outside of the map, and its edge nearer to it
    inside = (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor()
    fraction = position - low
    index = torch.stack((low, (low + 1).clamp(max=size - 1)), dim=-1).long()
    weight = torch.stack((1 - fraction, fraction), dim=-1) * inside[..., None] / sampling_ratio
    shape = (len(start), cells, 2 * sampling_ratio)
    return index.reshape(shape), weight.reshape(shape)
