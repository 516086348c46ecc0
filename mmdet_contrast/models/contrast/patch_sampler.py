"""Random feature locations, the same in an image and its view."""

from typing import List, NamedTuple, Sequence, Tuple

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .background import occupied_boxes

REGIONS = ('boxes', 'outside', 'all')


class Locations(NamedTuple):
    """Feature locations of one level; rows correspond.

    Attributes:
        original (Tensor): (M,) long, position of the original in the batch.
        view (Tensor): (M,) long, position of its view in the batch.
        y (Tensor): (M,) long, row of the feature map.
        x (Tensor): (M,) long, column of the feature map.
        labels (Tensor): (M,) long, class of the smallest box at the location, -1 without one.
    """

    original: Tensor
    view: Tensor
    y: Tensor
    x: Tensor
    labels: Tensor


@MODELS.register_module()
class PatchSampler(nn.Module):
    """Draw feature locations for PatchNCE (CUT, arXiv 2007.15651), alike in both views.

    On every level up to ``num_patches`` distinct cells of the feature map are drawn for each
    image, evenly among those that lie in the image (not in its padding) and in ``region``. A cell
    at column x and row y of a level of stride s stands for the pixels from ``(x s, y s)`` to
    ``((x + 1) s, (y + 1) s)``, with its centre in the middle. An image without such a cell on a
    level contributes none there. Uses PyTorch's generator.

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

    def __init__(self, num_patches: int = 256, region: str = 'boxes') -> None:
        super().__init__()
        if num_patches < 1:
            raise ValueError(f'PatchSampler got num_patches={num_patches}, at least 1 expected.')
        if region not in REGIONS:
            raise ValueError(f'PatchSampler got region={region!r}, one of {REGIONS} expected.')
        self.num_patches = num_patches
        self.region = region

    @torch.no_grad()
    def forward(
        self,
        feats: Sequence[Tensor],
        strides: Sequence[int],
        batch_data_samples: Sequence[DetDataSample],
    ) -> List[Locations]:
        """Draw locations on every level.

        Args:
            feats (Sequence[Tensor]): Features (B, C, H_l, W_l) of every level.
            strides (Sequence[int]): Stride of every level in pixels.
            batch_data_samples (Sequence[DetDataSample]): The B samples, originals and views.

        Returns:
            list[Locations]: The locations of every level, by image; 0 rows where there are none.

        Raises:
            ValueError: If a view shows its objects at other places than its original.
        """
        views = [i for i, s in enumerate(batch_data_samples) if s.metainfo.get('view', 0)]
        device = feats[0].device
        if not views:
            none = torch.zeros(0, dtype=torch.long, device=device)
            return [Locations(none, none, none, none, none) for _ in feats]
        _check_places(batch_data_samples, views)
        positions = [batch_data_samples[i].view_of for i in views]
        originals = [batch_data_samples[i] for i in positions]
        boxes = _pad([get_box_tensor(s.gt_instances.bboxes).float() for s in originals], -1)
        labels = _pad([s.gt_instances.labels for s in originals], -1)
        shapes = torch.tensor([s.img_shape[:2] for s in originals], device=device)

        original = torch.tensor(positions, device=device)
        view = torch.tensor(views, device=device)
        out = []
        for feat, stride in zip(feats, strides):
            mask = self._allowed(originals, boxes, shapes, feat.shape[2:], stride)
            image, y, x = self._draw(mask)
            at = _label_at(boxes[image], labels[image], (x + 0.5) * stride, (y + 0.5) * stride)
            out.append(Locations(original[image], view[image], y, x, at))
        return out

    def _allowed(
        self,
        originals: Sequence[DetDataSample],
        boxes: Tensor,
        shapes: Tensor,
        size: Tuple[int, int],
        stride: int,
    ) -> Tensor:
        """Return (N, H, W) bool: the cells that may be drawn."""
        ys, xs = (torch.arange(n, device=boxes.device, dtype=boxes.dtype) * stride for n in size)
        within_y = ys + stride / 2 < shapes[:, :1]
        within_x = xs + stride / 2 < shapes[:, 1:]
        mask = within_y[:, :, None] & within_x[:, None]
        if self.region == 'boxes':
            valid = _pad([_valid(s) for s in originals], 0)
            inside_y = _inside(boxes[..., 1::2], ys + stride / 2) & valid[..., None]
            mask &= _any_box(inside_y, _inside(boxes[..., 0::2], xs + stride / 2))
        elif self.region == 'outside':
            taken = _pad([occupied_boxes(s).float() for s in originals], -1)
            # views are painted in whole pixels
            low, high = taken[..., :2].floor()[..., None], taken[..., 2:].ceil()[..., None]
            touches_x = (xs < high[..., 0, :]) & (xs + stride > low[..., 0, :])
            touches_y = (ys < high[..., 1, :]) & (ys + stride > low[..., 1, :])
            mask &= ~_any_box(touches_y, touches_x)
        return mask

    def _draw(self, mask: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Return image, row and column, (M,) each, of the cells drawn from (N, H, W)."""
        width, flat = mask.shape[2], mask.flatten(1)
        order = torch.rand(flat.shape, device=mask.device).masked_fill_(~flat, -1.0)
        value, cell = order.topk(min(self.num_patches, flat.shape[1]), dim=1)
        image, slot = (value >= 0).nonzero(as_tuple=True)
        cell = cell[image, slot]
        return image, torch.div(cell, width, rounding_mode='floor'), cell % width


def _pad(rows: List[Tensor], value: float) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)


def _valid(sample: DetDataSample) -> Tensor:
    instances = sample.gt_instances
    default = torch.ones_like(instances.labels, dtype=torch.bool)
    return instances.get('view_valid', default)


def _inside(bounds: Tensor, places: Tensor) -> Tensor:
    """Return (N, G, S) bool: which of (S,) places are within (N, G, 2) bounds."""
    return (bounds[..., :1] <= places) & (places < bounds[..., 1:])


def _any_box(rows: Tensor, columns: Tensor) -> Tensor:
    """Return (N, H, W) bool: whether any of G boxes has both the row and the column."""
    return torch.einsum('ngh,ngw->nhw', rows.float(), columns.float()) > 0


def _label_at(boxes: Tensor, labels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (M,) class of the smallest of (M, G, 4) boxes around each point, -1 without one."""
    if boxes.shape[1] == 0:
        return torch.full_like(x, -1, dtype=torch.long)
    inside = _inside(boxes[..., 0::2], x[:, None, None]) & _inside(
        boxes[..., 1::2], y[:, None, None]
    )
    inside = inside[..., 0]
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    smallest = areas.masked_fill(~inside, float('inf')).argmin(dim=1, keepdim=True)
    found = labels.gather(1, smallest)[:, 0]
    return found.masked_fill(~inside.any(dim=1), -1)


def _check_places(samples: Sequence[DetDataSample], views: Sequence[int]) -> None:
    """Make sure that every view shows its objects where its original does."""
    if any(samples[i].metainfo.get('canvas', False) for i in views):
        raise ValueError(
            'PatchSampler got a canvas in place of a full second view: locations of the two do '
            'not correspond. Leave out the canvas (model.data_preprocessor), or contrast '
            'boxes (contrast.sampler=None).'
        )
    places = [
        [get_box_tensor(s.gt_instances.bboxes) for s in side]
        for side in ([samples[samples[i].view_of] for i in views], [samples[i] for i in views])
    ]
    if not torch.equal(*(torch.cat(side) for side in places)):
        raise ValueError(
            'PatchSampler got a view whose boxes are not where those of its image are, so that '
            'locations do not correspond: leave the transforms that move boxes (RandomFlip, …) '
            'out of ContrastiveView.transforms, or contrast boxes (contrast.sampler=None).'
        )
