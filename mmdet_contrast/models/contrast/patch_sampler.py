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

from ..losses import PairBatch
from .background import occupied_boxes

REGIONS = ('boxes', 'outside', 'all')


@MODELS.register_module()
class PatchSampler(nn.Module):
    """Draw feature locations for PatchNCE (CUT, arXiv 2007.15651), the same in both views.

    On every level up to ``num_patches`` distinct cells of the feature map are drawn for each
    image that has a view, evenly among those that lie in the image (not in its padding) and in
    ``region``. A cell at column x and row y of a level of stride s stands for the pixels from
    ``(x s, y s)`` to ``((x + 1) s, (y + 1) s)``, with its centre in the middle; in the view the
    features are interpolated at the same place. Uses PyTorch's generator.

    Used as the sampler of :class:`RegionContrast`, with a projector for each level as in CUT::

        contrast=dict(
            sampler=dict(type='PatchSampler', num_patches=256, region='boxes'),
            projector=dict(type='MLPProjector', hidden_channels=256, out_channels=256),
            share_projector=False,
            scope='image',
            criterion=dict(type='PatchNCELoss'))

    Args:
        num_patches (int): Largest number n of locations for an image and level.
        region (str): ``'boxes'``: cells whose centre is in an object that may be contrasted
            (``view_valid``): what changed between the views. ``'outside'``: cells none of whose
            pixels is in any box, valid, invalid or ignored: what did not change but for its
            surroundings. ``'all'``: both and everything between.
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
            in pixels of the batch, M = n for each image that has a view; ``valid`` marks those that
            were drawn, ``labels`` are the classes of the smallest box around each, -1 without one.

        Raises:
            ValueError: If a view shows its objects at other places than its original.
        """
        device = feats[0].device
        positions = [
            i for i, s in enumerate(batch_data_samples) if s.metainfo.get('has_view', False)
        ]
        originals = [batch_data_samples[i] for i in positions]
        if any(s.view_moved for s in originals):
            raise ValueError(
                'PatchSampler got a view that shows its objects at other places: leave transforms '
                'that move boxes (RandomFlip, …) out of ContrastiveView.transforms.'
            )
        if not originals:
            rows = torch.zeros(len(feats), 0, 5, device=device)
            labels = torch.zeros(len(feats), 0, dtype=torch.long, device=device)
            return PairBatch(rows, labels, labels.bool())
        boxes = _pad([get_box_tensor(s.gt_instances.bboxes).float() for s in originals], -1)
        classes = _pad([s.gt_instances.labels for s in originals], -1)
        sizes = tuple(tuple(feat.shape[2:]) for feat in feats)
        rows, columns, cells, index = _cells(sizes, tuple(strides), device)
        mask = self._allowed(originals, boxes, rows, columns).flatten(1).index_select(1, index)
        cell, drawn = self._draw(mask, [height * width for height, width in sizes])

        cell = cells.index_select(0, cell.flatten()).view(*cell.shape, 4)  # (N, L, n, 4)
        labels = _label_at(boxes, classes, ((cell[..., :2] + cell[..., 2:]) / 2).flatten(1, 2))
        # picture, scale and offset of each view in pixels
        places = _on([_place(s, batch_data_samples) for s in originals], device)[:, None, None]
        image = _on(positions, device)[:, None, None, None].expand(*drawn.shape, 1)
        moved = cell * places[..., 1:2] + places[..., 2:].repeat(1, 1, 1, 2)
        pairs = (
            torch.cat((image, cell), dim=3),
            torch.cat((places[..., :1].expand_as(image), moved), dim=3),
        )
        labels, drawn = (x.view(drawn.shape).transpose(0, 1).flatten(1) for x in (labels, drawn))
        rows = torch.cat([x.transpose(0, 1).flatten(1, 2) for x in pairs], dim=1)
        return PairBatch(rows, labels, drawn)

    def _allowed(
        self, originals: Sequence[DetDataSample], boxes: Tensor, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Return (N, R, C) bool: the rows and columns of cells where some may be drawn."""
        shapes = _on([s.img_shape[:2] for s in originals], boxes.device)
        ys, xs = rows.mean(dim=0), columns.mean(dim=0)
        mask = (ys < shapes[:, :1])[:, :, None] & (xs < shapes[:, 1:])[:, None]
        if self.region == 'boxes':
            valid = _pad([s.gt_instances.view_valid for s in originals], False)
            inside_y = _inside(boxes[..., 1::2], ys) & valid[..., None]
            mask &= _any_box(inside_y, _inside(boxes[..., 0::2], xs))
        elif self.region == 'outside':
            taken = _pad([torch.cat(occupied_boxes(s)).float() for s in originals], -1)
            # views are painted in whole pixels
            low, high = taken[..., :2].floor()[..., None], taken[..., 2:].ceil()[..., None]
            touches_x = (columns[0] < high[..., 0, :]) & (columns[1] > low[..., 0, :])
            touches_y = (rows[0] < high[..., 1, :]) & (rows[1] > low[..., 1, :])
            mask &= ~_any_box(touches_y, touches_x)
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
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return where the cells of all levels are, in pixels.

    That is first and last edge of all R rows and C columns of cells, (2, R) and (2, C); the boxes
    (S, 4) of the S cells, level by level; and (S,) the place of each in the flattened (R, C).
    """
    lines: Tuple[List[Tensor], List[Tensor]] = ([], [])
    boxes, places = [], []
    total, starts = sum(width for _, width in sizes), [0, 0]
    for size, stride in zip(sizes, strides):
        edges = [torch.arange(n) * float(stride) for n in size]
        for line, edge in zip(lines, edges):
            line.append(torch.stack((edge, edge + stride)))
        y, x = torch.meshgrid(*edges, indexing='ij')
        boxes.append(torch.stack((x, y, x + stride, y + stride), dim=2).flatten(0, 1))
        row, column = (start + torch.arange(n) for start, n in zip(starts, size))
        places.append((row[:, None] * total + column).flatten())
        starts = [start + n for start, n in zip(starts, size)]
    parts = (torch.cat(lines[0], dim=1), torch.cat(lines[1], dim=1), torch.cat(boxes))
    rows, columns, cells, index = (x.to(device) for x in (*parts, torch.cat(places)))
    return rows, columns, cells, index


def _on(values: Sequence, device: torch.device) -> Tensor:
    """Return a float tensor without waiting for the device."""
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)


def _place(original: DetDataSample, samples: Sequence[DetDataSample]) -> List[float]:
    """Return picture, scale, left and upper edge of a view in pixels."""
    picture, scale, left, top = original.view_place
    height, width = samples[picture].img_shape
    return [float(picture), scale, left * width, top * height]


def _pad(rows: List[Tensor], value: float) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)


def _inside(bounds: Tensor, places: Tensor) -> Tensor:
    """Return (N, G, S) bool: which of (S,) places are within (N, G, 2) bounds."""
    return (bounds[..., :1] <= places) & (places < bounds[..., 1:])


def _any_box(rows: Tensor, columns: Tensor) -> Tensor:
    """Return (N, H, W) bool: whether any of G boxes has both the row and the column."""
    return torch.einsum('ngh,ngw->nhw', rows.float(), columns.float()) > 0


def _label_at(boxes: Tensor, labels: Tensor, points: Tensor) -> Tensor:
    """Return (N, n) class of the smallest of (N, G, 4) boxes around each point, -1 without one."""
    if boxes.shape[1] == 0:
        return torch.full_like(points[..., 0], -1, dtype=torch.long)
    points, corners = points[:, :, None], boxes[:, None]
    inside = ((corners[..., :2] <= points) & (points < corners[..., 2:])).all(dim=3)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=2)[:, None]
    areas = areas.expand_as(inside).masked_fill(~inside, float('inf'))
    found = labels.gather(1, areas.argmin(dim=2))
    return found.masked_fill(~inside.any(dim=2), -1)
