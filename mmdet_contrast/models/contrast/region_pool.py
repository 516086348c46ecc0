"""Pooling of regions on the levels of a feature pyramid."""

from typing import Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from torch import Tensor


def pool_regions(
    feats: Sequence[Tensor],
    rois: Tensor,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int = 2,
) -> Tensor:
    """Pool regions on every level by RoIAlign (Mask R-CNN, arXiv 1703.06870; ``aligned=True``).

    Args:
        feats (Sequence[Tensor]): Features (B, C_l, H_l, W_l) of each of L levels.
        rois (Tensor): (L | 1, R, 5) regions ``(position in the batch, x1, y1, x2, y2)`` in pixels
            of the batch; with a first dimension of 1 the same on all levels.
        strides (Sequence[float]): Pixels of the batch to a cell of each level.
        output_size (int): Height and width P of the pooled regions.
        sampling_ratio (int): Samples to a cell and axis.

    Returns:
        Tensor: (L, R, C * P * P) in float32 or wider, C the largest number of channels; levels of
        fewer are filled up with zeros.
    """
    width = max(feat.shape[1] for feat in feats) * output_size**2
    pooled = []
    for i, (feat, stride) in enumerate(zip(feats, strides)):
        # coordinates of half precision would be off by pixels, and the kernels know one format
        feat = feat.to(torch.promote_types(feat.dtype, torch.float32)).contiguous()
        regions = rois[i if len(rois) > 1 else 0].to(feat.dtype)
        if not len(regions):
            # the kernels cannot be launched for nothing
            pooled.append(feat.flatten()[:0].view(0, width))
            continue
        out = roi_align(feat, regions, output_size, 1 / stride, sampling_ratio, 'avg', True)
        out = out.flatten(1)
        pooled.append(F.pad(out, (0, width - out.shape[1])) if out.shape[1] < width else out)
    return torch.stack(pooled)
