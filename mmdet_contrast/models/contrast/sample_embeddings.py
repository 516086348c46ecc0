"""Embeddings of annotated boxes, or of whole images, from feature maps."""

from math import log2
from typing import List, Sequence, Tuple, Union

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, get_box_tensor
from torch import Tensor

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.picture_extent import picture_extent

from .region_pool import pool_regions

# samples to a side of a box, however many cells it has
_SAMPLES = 8


def embed_samples(
    feats: Sequence[Tensor],
    data_samples: Sequence[DetDataSample],
    input_shape: Sequence[int],
    level: Union[int, str] = 'scale',
) -> Tuple[Tensor, Tensor]:
    """Compute an embedding for everything that has a label.

    That is each box of ``gt_instances``; or the image, where its metainfo has ``gt_label``: its
    features are averaged over their positions, padding left out.

    Args:
        feats (Sequence[Tensor]): Features (B, C_l, H_l, W_l) of every level.
        data_samples (Sequence[DetDataSample]): B samples; all of them boxes or all of them images.
        input_shape (Sequence[int]): Height and width of the batch in pixels.
        level (int | str): See :func:`embed_regions`. Images have no size to choose a level by:
            ``'scale'`` is the last.

    Returns:
        tuple[Tensor, Tensor]: (K, D) embeddings and (K,) class indices, both in the order of the
        samples.
    """
    device = feats[0].device
    if data_samples and 'gt_label' in data_samples[0].metainfo:
        strides = infer_strides(feats, input_shape)
        chosen = -1 if level == 'scale' else _checked(level, feats)
        labels = torch.tensor([s.metainfo['gt_label'] for s in data_samples], device=device)
        return _average(feats[chosen], data_samples, strides[chosen]), labels
    boxes = [get_box_tensor(s.gt_instances.bboxes).float().to(device) for s in data_samples]
    labels = torch.cat([s.gt_instances.labels.to(device) for s in data_samples])
    vectors = embed_regions(feats, bbox2roi(boxes), input_shape, level)
    return vectors, labels


def embed_regions(
    feats: Sequence[Tensor],
    rois: Tensor,
    input_shape: Sequence[int],
    level: Union[int, str] = 'scale',
) -> Tensor:
    """Compute embeddings of regions: the mean over each, by RoIAlign.

    Args:
        feats (Sequence[Tensor]): Features (B, C_l, H_l, W_l) of every level.
        rois (Tensor): (K, 5) position in the batch and box in pixels of the batch.
        input_shape (Sequence[int]): Height and width of the batch in pixels.
        level (int | str): Index of a level, negative ones from the end; ``'scale'``: each box on
            the level whose basic anchor (4 strides) is nearest to the root of its area; where
            levels have different numbers of channels each has columns of its own, so that boxes of
            two levels have the cosine 0.

    Returns:
        Tensor: (K, D) in float32, not of length 1.

    Raises:
        LaunchError: If there is no such level.
    """
    strides = infer_strides(feats, input_shape)
    if level != 'scale':
        chosen = _checked(level, feats)
        return _pool(feats[chosen], rois, strides[chosen])
    widths = [feat.shape[1] for feat in feats]
    # each level has columns of its own where they cannot share theirs
    shared = len(set(widths)) == 1
    starts = [0 if shared else sum(widths[:i]) for i in range(len(feats))]
    sizes = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).clamp(min=1).sqrt()
    anchors = 4 * rois.new_tensor(list(strides))
    place = (sizes.log2()[:, None] - anchors.log2()).abs().argmin(dim=1)
    width = widths[0] if shared else sum(widths)
    vectors = feats[0].new_zeros((len(rois), width), dtype=torch.float32)
    for i, feat in enumerate(feats):
        own = (place == i).nonzero()[:, 0]
        pooled = _pool(feat, rois[own], strides[i])
        vectors[own, starts[i] : starts[i] + widths[i]] = pooled.float()
    return vectors


def infer_strides(feats: Sequence[Tensor], input_shape: Sequence[int]) -> List[float]:
    """Find the strides of a pyramid from the sizes of its maps.

    Args:
        feats (Sequence[Tensor]): Features (B, C_l, H_l, W_l) of every level, the finest first.
        input_shape (Sequence[int]): Height and width of the batch in pixels.

    Returns:
        list[float]: Of each level the smallest power of 2 that is larger than that of the level
        before and halves the batch, rounding up, to the size of the map; where there is none, as
        with patches of 14 pixels, the quotient of the widths.
    """
    strides: List[float] = []
    height, width = input_shape
    for feat in feats:
        rows, columns = feat.shape[-2:]
        fits = [
            2**n
            for n in range(int(log2(max(height, width))) + 4)
            if (-(-height // 2**n), -(-width // 2**n)) == (rows, columns)
        ]
        larger = [s for s in fits if not strides or s > strides[-1]] or fits
        strides.append(float(larger[0]) if larger else width / columns)
    return strides


def _pool(feat: Tensor, rois: Tensor, stride: float) -> Tensor:
    return pool_regions([feat], rois[None], [stride], 1, _SAMPLES)[0]


def _checked(level: Union[int, str], feats: Sequence[Tensor]) -> int:
    count = len(feats)
    if not isinstance(level, int) or not -count <= level < count:
        raise LaunchError(
            f"level={level!r} given, 'scale' or an index of the {count} feature maps expected."
        )
    return level


def _average(feat: Tensor, data_samples: Sequence[DetDataSample], stride: float) -> Tensor:
    """Return the mean (B, C) of the features over the cells that see the image."""
    feat = feat.float()
    shapes = torch.tensor([picture_extent(s) for s in data_samples], device=feat.device)
    cells = (shapes / stride).ceil().clamp(min=1)
    rows = torch.arange(feat.shape[2], device=feat.device) < cells[:, :1]
    columns = torch.arange(feat.shape[3], device=feat.device) < cells[:, 1:]
    mask = (rows[:, None, :, None] & columns[:, None, None, :]).to(feat.dtype)
    return (feat * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3))
