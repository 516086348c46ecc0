"""Random feature locations, the same in an image and its view."""

from functools import lru_cache
from typing import List, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..data_preprocessors.contrastive_data_preprocessor import GRID
from ..losses import PairBatch

REGIONS = ('boxes', 'all')


@MODELS.register_module()
class PatchSampler(nn.Module):
    """Draw feature locations for PatchNCE (CUT, arXiv 2007.15651), the same in both views.

    On every level up to ``num_patches`` distinct cells of the feature map are drawn for each image,
    evenly among those that lie in the image (not in its padding) and in ``region``. A cell at
    column x and row y of a level of stride s stands for the pixels from ``(x s, y s)`` to
    ``((x + 1) s, (y + 1) s)``, with its centre in the middle; in the view the features are
    interpolated at the same place. Uses PyTorch's generator.

    Args:
        num_patches (int): Largest number n of locations for an image and level.
        region (str): ``'boxes'``: cells whose centre is in an object that may be contrasted
            (``view_valid``): what changed between the views. ``'all'``: every cell.
    """

    needs_views = True
    # the features at the centre of a cell are the cell's
    pool_size = sampling_ratio = 1

    def __init__(self, num_patches: int = 256, region: str = 'boxes') -> None:
        super().__init__()
        # anything else would silently be 'all'
        if region not in REGIONS:
            raise ValueError(f'PatchSampler got region={region!r}, one of {REGIONS} expected.')
        self.num_patches = num_patches
        self.region = region

    @torch.no_grad()
    def forward(
        self,
        feats: Sequence[Tensor],
        strides: Sequence[float],
        batch_data_samples: List[DetDataSample],
    ) -> PairBatch:
        """Draw locations on every level.

        Args:
            feats (Sequence[Tensor]): Features (B, C_l, H_l, W_l) of each of L levels.
            strides (Sequence[float]): Stride of each level in pixels.
            batch_data_samples (list[DetDataSample]): The B samples: originals, then pictures of
                views.

        Returns:
            PairBatch: Its rows are (L, 2M, 5) regions ``(position in the batch, x1, y1, x2, y2)``
            in pixels of the batch, M = n for each image; ``valid`` marks those that were drawn,
            ``labels`` are the classes of the smallest box around each, -1 without one.

        Raises:
            ValueError: If a view shows its objects at other places than its original.
        """
        device = feats[0].device
        originals = [s for s in batch_data_samples if s.view == 0]
        if any(s.view_moved for s in originals):
            raise ValueError(
                'PatchSampler got a view that shows its objects at other places: leave transforms '
                'that move boxes (RandomFlip, …) out of ContrastiveView.transforms.'
            )
        boxes = _pad([get_box_tensor(s.gt_instances.bboxes).float() for s in originals], -1)
        classes = _pad([s.gt_instances.labels for s in originals], -1)
        sizes = tuple(tuple(feat.shape[2:]) for feat in feats)
        cells = _cells(sizes, tuple(strides), device)
        mask = self._allowed(originals, boxes, (cells[None, :, :2] + cells[None, :, 2:]) / 2)
        cell, drawn = self._draw(mask, [height * width for height, width in sizes])

        cell = cells.index_select(0, cell.flatten()).view(*cell.shape, 4)  # (N, L, n, 4)
        labels = _label_at(boxes, classes, ((cell[..., :2] + cell[..., 2:]) / 2).flatten(1, 2))
        # picture and offset of each view in pixels
        places = _on([_place(s, batch_data_samples) for s in originals], device)[:, None, None]
        image = _on(range(len(originals)), device)[:, None, None, None].expand(*drawn.shape, 1)
        moved = cell / GRID + places[..., 1:].repeat(1, 1, 1, 2)
        pairs = (
            torch.cat((image, cell), dim=3),
            torch.cat((places[..., :1].expand_as(image), moved), dim=3),
        )
        labels, drawn = (x.view(drawn.shape).transpose(0, 1).flatten(1) for x in (labels, drawn))
        rows = torch.cat([x.transpose(0, 1).flatten(1, 2) for x in pairs], dim=1)
        return PairBatch(rows, labels, drawn)

    def _allowed(
        self, originals: Sequence[DetDataSample], boxes: Tensor, centres: Tensor
    ) -> Tensor:
        """Return (N, S) bool: which of S cells with (1, S, 2) centres may be drawn."""
        extents = _on([s.img_shape[1::-1] for s in originals], boxes.device)
        mask = (centres < extents[:, None]).all(dim=2)
        if self.region == 'boxes':
            valid = _pad([s.gt_instances.view_valid for s in originals], False)
            mask &= (_inside(boxes, centres) & valid[:, None]).any(dim=2)
        return mask

    def _draw(self, mask: Tensor, numbers: Sequence[int]) -> Tuple[Tensor, Tensor]:
        """Return the cell and whether it was drawn, (N, L, n) each, of cells (N, S) of L levels."""
        order = torch.rand(mask.shape, device=mask.device).masked_fill_(~mask, -1.0)
        values, cells, start = [], [], 0
        for number, part in zip(numbers, order.split(list(numbers), dim=1)):
            if number < self.num_patches:
                part = F.pad(part, (0, self.num_patches - number), value=-1.0)
            value, cell = part.topk(self.num_patches, dim=1)
            values.append(value)
            cells.append(cell + start)
            start += number
        drawn = torch.stack(values, dim=1) >= 0
        return torch.stack(cells, dim=1) * drawn, drawn


@lru_cache(maxsize=8)
def _cells(
    sizes: Tuple[Tuple[int, int], ...], strides: Tuple[float, ...], device: torch.device
) -> Tensor:
    """Return the boxes (S, 4) of the cells of all levels in pixels, level by level."""
    boxes = []
    for size, stride in zip(sizes, strides):
        edges = (torch.arange(n, device=device) * float(stride) for n in size)
        y, x = torch.meshgrid(*edges, indexing='ij')
        boxes.append(torch.stack((x, y, x + stride, y + stride), dim=2).flatten(0, 1))
    return torch.cat(boxes)


def _on(values: Sequence, device: torch.device) -> Tensor:
    """Return a float tensor without waiting for the device."""
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)


def _place(original: DetDataSample, samples: Sequence[DetDataSample]) -> List[float]:
    """Return picture, left and upper edge of a view in pixels."""
    picture, left, top = original.view_place
    height, width = samples[picture].img_shape
    return [float(picture), left * width, top * height]


def _pad(rows: List[Tensor], value: float) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)


def _inside(boxes: Tensor, points: Tensor) -> Tensor:
    """Return (N, S, G) bool: which of (N | 1, S, 2) points are in which (N, G, 4) boxes."""
    points, corners = points[..., None, :], boxes[:, None]
    return ((corners[..., :2] <= points) & (points < corners[..., 2:])).all(dim=3)


def _label_at(boxes: Tensor, labels: Tensor, points: Tensor) -> Tensor:
    """Return (N, S) class of the smallest of (N, G, 4) boxes around each point, -1 without one."""
    if boxes.shape[1] == 0:
        return torch.full_like(points[..., 0], -1, dtype=torch.long)
    inside = _inside(boxes, points)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=2)[:, None]
    areas = areas.expand_as(inside).masked_fill(~inside, float('inf'))
    found = labels.gather(1, areas.argmin(dim=2))
    return found.masked_fill(~inside.any(dim=2), -1)
