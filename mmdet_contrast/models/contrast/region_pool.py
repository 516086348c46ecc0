"""Regions of a batch, and their pooling on the levels of a feature pyramid."""

from typing import Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from torch import Tensor


def batch_rois(boxes: Sequence[Tensor], positions: Sequence[int], device: torch.device) -> Tensor:
    """Join the boxes of images without waiting for the device.

    Args:
        boxes (Sequence[Tensor]): (G_i, 4) boxes of each image in pixels; G_i may be 0.
        positions (Sequence[int]): Position of each image in the batch.
        device (torch.device): Of the result.

    Returns:
        Tensor: (M, 5) regions ``(position in the batch, x1, y1, x2, y2)`` in float32.
    """
    if not boxes:
        return torch.zeros(0, 5, device=device)
    numbers = [[float(i)] for i, own in zip(positions, boxes) for _ in range(len(own))]
    position = torch.tensor(numbers).view(-1, 1).to(device, non_blocking=True)
    return torch.cat((position, torch.cat(tuple(boxes)).to(device, torch.float32)), dim=1)


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
