"""Batches with random boxes and features, and the contrastive branch as a slow loop."""

import math
from collections import defaultdict, deque
from typing import Dict, List, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from readable_losses import loop_of
from torch import Tensor

from mmdet_contrast.models.contrast import RegionContrast
from mmdet_contrast.models.data_preprocessors import ContrastiveDataPreprocessor
from mmdet_contrast.models.losses import PairBatch

SIZE = (128, 192)
STRIDES = (8, 16, 32)
CHANNELS = 4


def make_samples(
    counts: Sequence[int],
    views: bool = True,
    classes: int = 3,
    valid_share: float = 0.8,
    seed: Union[int, Sequence[int]] = 0,
) -> List[DetDataSample]:
    """Make the data samples of a batch as ``ContrastiveDataPreprocessor`` lays it out.

    Args:
        counts (Sequence[int]): Boxes of each image.
        views (bool): Whether the images have views.
        classes (int): Number of classes.
        valid_share (float): Share of the boxes that may be contrasted.
        seed (int | Sequence[int]): Seed of the boxes, or of those of each image.
    """
    inputs, samples = [], []
    for i, count in enumerate(counts):
        own = 100 * seed + i if isinstance(seed, int) else seed[i]
        generator = torch.Generator().manual_seed(own)
        start = torch.rand(count, 2, generator=generator) * torch.tensor([150.0, 90.0])
        # from a few pixels, far less than a cell of the coarsest level, to much of the picture
        sides = 4 + torch.rand(count, 2, generator=generator) ** 2 * 90
        sample = DetDataSample(metainfo=dict(img_shape=SIZE))
        sample.gt_instances = InstanceData(
            bboxes=torch.cat((start, start + sides), dim=1),
            labels=torch.randint(classes, (count,), generator=generator),
        )
        sample.ignored_instances = InstanceData(bboxes=torch.tensor([[150.0, 100, 190, 128]]))
        if views:
            valid = torch.rand(count, generator=generator) < valid_share
            sample.gt_instances.view_valid = valid
        inputs.append(torch.zeros((2, 3, *SIZE) if views else (3, *SIZE)))
        samples.append(sample)
    layout = ContrastiveDataPreprocessor()
    return layout(dict(inputs=inputs, data_samples=samples), True)['data_samples']


def make_feats(
    batch: int,
    channels: int = CHANNELS,
    strides: Sequence[int] = STRIDES,
    dtype: torch.dtype = torch.double,
    seed: int = 0,
) -> List[Tensor]:
    """Make random features of every level, leaves of the graph."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, channels, -(-SIZE[0] // s), -(-SIZE[1] // s)) for s in strides]
    feats = [torch.randn(shape, dtype=torch.double, generator=generator) for shape in shapes]
    return [feat.to(dtype).requires_grad_() for feat in feats]


def build(**kwargs) -> RegionContrast:
    """Build the branch in float64, always with the same weights."""
    projector = dict(type='MLPProjector', hidden_channels=8, out_channels=5)
    cfg = dict(in_channels=CHANNELS, strides=STRIDES, num_classes=3, projector=projector)
    torch.manual_seed(0)
    return RegionContrast(**{**cfg, **kwargs}).double()


class ReadableBranch:
    """What the branch does with what its sampler draws, one level, region and anchor at a time.

    Args:
        module (RegionContrast): The branch.
    """

    def __init__(self, module: RegionContrast) -> None:
        self.module = module
        size = module.queue.size if module.queue else None
        self.queue: Dict[Tuple[int, int], deque] = defaultdict(lambda: deque(maxlen=size))

    def __call__(
        self, feats: Sequence[Tensor], batch: PairBatch
    ) -> Tuple[Dict[str, Tensor], List[Tuple[float, float]]]:
        """Return the losses, and of each level the mean of the terms and its chance level."""
        module, losses, means = self.module, {}, []
        for i, name in enumerate(module.names):
            loss, chance = self._level(i, feats[i], batch)
            losses[name] = module.criterion.loss_weight * loss / len(module.strides)
            means.append((float(loss), chance))
        return losses, means

    def _level(self, i: int, feat: Tensor, batch: PairBatch) -> Tuple[Tensor, float]:
        module, count = self.module, batch.num_pairs
        rows = batch.rows[i if len(batch.rows) > 1 else 0]
        labels, valid = (x[i if len(x) > 1 else 0].tolist() for x in (batch.labels, batch.valid))
        pairs = [m for m in range(count) if valid[m]]
        labels, images = [labels[m] for m in pairs], [int(rows[m, 0]) for m in pairs]
        query = [self._embed(i, feat, rows[m]) for m in pairs]
        key = [self._embed(i, feat, rows[m + count]) for m in pairs]
        extra, use = [], [[] for _ in pairs]
        by_image = module.scope == 'image'
        by_class = 'PatchNCE' not in str(module.criterion) and (
            getattr(module.criterion, 'negatives', None) != 'all'
        )
        for k, roi in enumerate(rows[2 * count :]):
            if not batch.fallback_mask[0, 0, k]:
                continue
            extra.append(self._embed(i, feat, roi))
            for m, image in enumerate(images):
                meets = any(
                    n != m
                    and (not by_class or labels[n] != labels[m] or labels[m] < 0)
                    and (not by_image or images[n] == image)
                    for n in range(len(pairs))
                )
                use[m].append(not meets and (not by_image or image == int(roi[0])))
        for (level, of), entries in self.queue.items():
            extra += list(entries) if level == i else []
            for m, label in enumerate(labels):
                use[m] += [of != label] * (len(entries) if level == i else 0)
        for label, row in zip(labels, key):
            if module.queue and label >= 0:
                self.queue[i, label].append(row.detach())
        if not pairs:
            return feat.sum() * 0, math.nan
        groups = images if by_image else None
        loop = loop_of(module.criterion)
        classes = labels if module.average == 'classes' else None
        return loop(torch.stack(query), torch.stack(key), labels, groups, extra, use, classes)

    def _embed(self, i: int, feat: Tensor, roi: Tensor) -> Tensor:
        module, sampler = self.module, self.module.sampler
        size, scale = (sampler.pool_size, sampler.pool_size), 1 / module.strides[i]
        pooled = roi_align(
            feat, roi[None].to(feat), size, scale, sampler.sampling_ratio, 'avg', True
        ).flatten()
        hidden, out = (
            layers[i if len(layers) > 1 else 0]
            for layers in (module.projector.hidden, module.projector.out)
        )
        pooled = F.pad(pooled, (0, hidden.in_features - len(pooled)))
        return out(hidden(pooled).relu())
