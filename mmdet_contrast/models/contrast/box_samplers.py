"""Which boxes are compared with which."""

from typing import List, Sequence

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..losses import PairBatch
from .background import sample_background


class _BoxSampler(nn.Module):
    """Pairs of boxes, and regions of the background."""

    sampling_ratio = 2

    def __init__(self, pool_size: int = 3, background: int = 4) -> None:
        super().__init__()
        self.pool_size = pool_size
        self.background = background

    def _batch(
        self,
        pairs: Tensor,
        labels: Tensor,
        valid: Tensor,
        objects: Tensor,
        samples: Sequence[DetDataSample],
    ) -> PairBatch:
        """Join pairs of regions (2, M, 5) with regions of background, beside the (M, 5) objects."""
        # what takes no part may be no region at all, and is pooled all the same
        rows, mask = [torch.where(valid[:, None], pairs, 0.0).flatten(0, 1)], None
        if self.background:
            originals = _positions(samples, view=0)
            crowded = [i for i in originals if len(samples[i].get('ignored_instances', ()))]
            if crowded:
                ignored = _rois(samples, crowded, objects.device, 'ignored_instances')
                objects = torch.cat((objects, ignored))
            rois, free = sample_background(
                [samples[i] for i in originals], originals, objects, self.background
            )
            rows.append(rois)
            mask = free[None, None]
        return PairBatch(torch.cat(rows)[None], labels[None], valid[None], fallback_mask=mask)


@MODELS.register_module()
class ViewBoxes(_BoxSampler):
    """Compare each object in an image with itself in the image's second view.

    The views are those of ``ContrastiveView``, laid out by ``ContrastiveDataPreprocessor``. Boxes
    that ``view_valid`` marks False take no part.

    Args:
        pool_size (int): Height and width P of the pooled regions.
        background (int): Regions of the background drawn in each image; they are negatives of
            objects that meet no object of another class; in losses that do not look at classes, of
            objects that meet no other. 0 for none.
    """

    needs_views = True

    def forward(
        self,
        feats: Sequence[Tensor],
        strides: Sequence[float],
        batch_data_samples: List[DetDataSample],
    ) -> PairBatch:
        """Pair the boxes.

        Args:
            feats (Sequence[Tensor]): Features (B, C_l, H_l, W_l) of each level.
            strides (Sequence[float]): Stride of each level in pixels.
            batch_data_samples (list[DetDataSample]): The B samples: originals, then pictures of
                views.

        Returns:
            PairBatch: Its rows are (1, 2M + K, 5) regions ``(position in the batch, x1, y1, x2,
            y2)`` in pixels of the batch.
        """
        samples, device = batch_data_samples, feats[0].device
        originals = _positions(samples, view=0)
        # in the pictures they are in the order of the originals
        pairs = _rois(samples, originals + _positions(samples, view=1), device)
        instances = [samples[i].gt_instances for i in originals]
        labels = torch.cat([x.labels for x in instances])
        valid = torch.cat([x.view_valid for x in instances])
        pairs = pairs.view(2, len(labels), 5)
        return self._batch(pairs, labels, valid, pairs[0], samples)


@MODELS.register_module()
class JitteredBoxes(_BoxSampler):
    r"""Compare each object with itself in the same image: its box, moved at random twice.

    .. math::
        x' = x + u w, \quad y' = y + v h, \qquad u, v \sim U(-\text{jitter}, \text{jitter})

    independently for both corners, within the image (the box sampling of FSCE, arXiv 2103.05950,
    and SoCo, arXiv 2106.02637). Needs no second view and no second pass. Uses PyTorch's generator.

    Args:
        jitter (float): Largest shift as a share of the side, below 0.5: corners cannot swap.
        pool_size (int): Height and width P of the pooled regions.
        background (int): See :class:`ViewBoxes`.
    """

    needs_views = False

    def __init__(self, jitter: float = 0.1, pool_size: int = 3, background: int = 4) -> None:
        super().__init__(pool_size, background)
        self.jitter = jitter

    def forward(
        self,
        feats: Sequence[Tensor],
        strides: Sequence[float],
        batch_data_samples: List[DetDataSample],
    ) -> PairBatch:
        """Pair the boxes of the originals; see :class:`ViewBoxes`."""
        samples, device = batch_data_samples, feats[0].device
        positions = _positions(samples, view=0)
        rois = _rois(samples, positions, device)
        originals = [samples[i] for i in positions]
        labels = torch.cat([s.gt_instances.labels for s in originals])
        corners = [[*s.img_shape[1::-1]] * 2 for s in originals for _ in range(len(s.gt_instances))]
        edges = torch.tensor([[[0.0] * 4] * len(corners), corners], dtype=torch.float32)
        low, high = edges.view(2, len(corners), 4).to(device, non_blocking=True)
        boxes = rois[:, 1:].clamp(low, high)
        sides = boxes[:, 2:] - boxes[:, :2]
        shift = torch.empty(2, *boxes.shape, device=device).uniform_(-self.jitter, self.jitter)
        moved = torch.addcmul(boxes, shift, sides.repeat(1, 2)).clamp(low, high)
        pairs = torch.cat((rois[:, :1].expand(2, -1, -1), moved), dim=2)
        return self._batch(pairs, labels, (sides > 0).all(dim=1), rois, samples)


def _positions(samples: Sequence[DetDataSample], view: int) -> List[int]:
    """Return the positions of the originals (0) or of the pictures of views (1)."""
    return [i for i, sample in enumerate(samples) if sample.metainfo.get('view', 0) == view]


def _rois(
    samples: Sequence[DetDataSample],
    positions: Sequence[int],
    device: torch.device,
    instances: str = 'gt_instances',
) -> Tensor:
    """Return (M, 5) regions ``(position in the batch, x1, y1, x2, y2)``, without waiting."""
    boxes = [get_box_tensor(samples[i].get(instances).bboxes) for i in positions]
    numbers = [[float(i)] for i, own in zip(positions, boxes) for _ in range(len(own))]
    position = torch.tensor(numbers).view(-1, 1).to(device, non_blocking=True)
    return torch.cat((position, torch.cat(boxes).to(device, torch.float32)), dim=1)
