"""The objects of a batch's views, packed into a few pictures."""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes, get_box_tensor
from mmdet.structures.mask import PolygonMasks
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from .shelf_packing import Placement, balanced_order, pack_by_priority

_ORDERS = ('random', 'small')


class _Crops(NamedTuple):
    """What is cut out of the views; rows correspond."""

    image: np.ndarray  # (M,) position in the batch
    row: np.ndarray  # (M,) row in gt_instances
    label: np.ndarray  # (M,)
    box: np.ndarray  # (M, 4) in the view
    window: np.ndarray  # (M, 4) int, what is cut out
    size: np.ndarray  # (M, 2) int, width and height on the canvas


class ViewCanvas:
    """Cut the objects out of the views of a batch and pack them into a few pictures.

    Every box that may be contrasted is cut out of its view with ``context`` pixels around it,
    grown to whole multiples of ``stride``, and laid on a canvas at a multiple of ``stride``: its
    features then lie on the same grid as in the whole view. Between two crops are at least
    ``gap`` blank pixels.

    Where not all boxes fit, the classes of the batch take turns, the rarest first (see
    :func:`balanced_order`). A box that has no place takes no part in this iteration; how many an
    image lost is its metainfo ``canvas_left_out``. A box is never larger than the canvas, which has
    the size of the padded batch.

    Args:
        share (float): Canvases to a batch, in (0, 1]: the batch size times ``share``, rounded, at
            least one. Fewer are made where they hold all boxes, none where there is no box.
        max_images (int, optional): Largest number of canvases, instead of ``share``.
        context (int): Pixels of the view around each box that are cut out with it.
        gap (int): Least distance between two crops in pixels.
        stride (int): Grid of the crops in pixels: the stride of the finest level of features.
        scale (float): Factor, in (0, 1], by which crops are shrunk.
        max_size (int, optional): Crops with a longer side are shrunk to it, so that large objects
            do not crowd out the others.
        order (str): Which boxes of a class come first: ``'random'`` (PyTorch's generator, which
            MMEngine seeds), or ``'small'`` ones, of which more fit.

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(
        self,
        share: float = 0.25,
        max_images: Optional[int] = None,
        context: int = 0,
        gap: int = 8,
        stride: int = 8,
        scale: float = 1.0,
        max_size: Optional[int] = None,
        order: str = 'random',
    ) -> None:
        for name, value, good, wanted in (
            ('share', share, 0 < share <= 1, 'a number above 0 and at most 1'),
            ('max_images', max_images, max_images is None or max_images >= 1, 'None or at least 1'),
            ('context', context, context >= 0, 'at least 0 pixels'),
            ('gap', gap, gap >= 0, 'at least 0 pixels'),
            ('stride', stride, stride >= 1, 'at least 1 pixel'),
            ('scale', scale, 0 < scale <= 1, 'a number above 0 and at most 1'),
            ('max_size', max_size, max_size is None or max_size >= 1, 'None or at least 1 pixel'),
            ('order', order, order in _ORDERS, f'one of {_ORDERS}'),
        ):
            if not good:
                raise ValueError(
                    f'model.data_preprocessor.canvas got {name}={value!r}, {wanted} expected.'
                )
        self.share = share
        self.max_images = max_images
        self.context = context
        self.gap = gap
        self.stride = stride
        self.scale = scale
        self.max_size = max_size
        self.order = order

    def __call__(
        self,
        views: Sequence[Optional[Tensor]],
        data_samples: Sequence[DetDataSample],
        size: Tuple[int, int],
        blank: Tensor,
    ) -> Tuple[List[Tensor], List[DetDataSample]]:
        """Make the canvases of a batch.

        Args:
            views (Sequence[Tensor | None]): View (C, H, W) of each of the N images; None for an
                image without one.
            data_samples (Sequence[DetDataSample]): Their N samples, which get the metainfo
                ``canvas_left_out``; boxes are ``view_bboxes`` where these exist, those with
                ``view_valid`` False are not wanted.
            size (tuple[int, int]): Height and width of a canvas.
            blank (Tensor): (C, 1, 1) pixel of an empty canvas.

        Returns:
            tuple[list[Tensor], list[DetDataSample]]: K canvases (C, H', W') of the views' dtype,
            and their samples: metainfo ``view=1, canvas=True``; ``gt_instances`` with ``bboxes``
            on the canvas, ``labels``, ``source_image`` (long, position in the batch) and
            ``source_box`` (long, row in the ``gt_instances`` of that image).
        """
        crops = self._find_crops(views, data_samples)
        places = self._place(crops, size, self._most_canvases(len(data_samples)))
        placed = crops.image[np.array([p is not None for p in places], dtype=bool)]
        for index, (view, sample) in enumerate(zip(views, data_samples)):
            wanted = 0 if view is None else int(_wanted(sample.gt_instances).sum())
            lost = wanted - int((placed == index).sum())
            sample.set_metainfo(dict(canvas_left_out=lost))
        canvases, samples = [], []
        for number in range(1 + max((p.canvas for p in places if p is not None), default=-1)):
            chosen = [i for i, p in enumerate(places) if p is not None and p.canvas == number]
            image, boxes = self._draw(views, crops, places, chosen, size, blank)
            canvases.append(image)
            samples.append(self._make_sample(crops, chosen, boxes, size, data_samples))
        return canvases, samples

    def _most_canvases(self, batch: int) -> int:
        """Return the largest number of canvases for a batch."""
        return self.max_images or max(1, int(batch * self.share + 0.5))

    def _find_crops(
        self, views: Sequence[Optional[Tensor]], data_samples: Sequence[DetDataSample]
    ) -> _Crops:
        """Return what is to be cut out of the views."""
        parts = [_Crops(*np.zeros((3, 0), int), np.zeros((0, 4)), np.zeros((0, 4), int), None)]
        for index, (view, sample) in enumerate(zip(views, data_samples)):
            if view is None:
                continue
            instances = sample.gt_instances
            boxes = instances.get('view_bboxes', instances.bboxes)
            boxes = get_box_tensor(boxes).cpu().numpy().astype(np.float64)
            limits = np.array([view.shape[2], view.shape[1]])
            low = np.floor((boxes[:, :2] - self.context) / self.stride) * self.stride
            high = np.ceil((boxes[:, 2:] + self.context) / self.stride) * self.stride
            window = np.concatenate((low.clip(0), np.minimum(high, limits)), axis=1)
            # a box that is empty, has a NaN, or lies outside of the image shows nothing
            good = (np.minimum(boxes[:, 2:], limits) > boxes[:, :2].clip(0)).all(axis=1)
            good &= (window[:, 2:] > window[:, :2]).all(axis=1)
            row = np.flatnonzero(good & _wanted(instances))
            labels = instances.labels.cpu().numpy()[row]
            window = window[row].astype(int)
            parts.append(_Crops(np.full(len(row), index), row, labels, boxes[row], window, None))
        image, row, label, box, window = (np.concatenate(x) for x in list(zip(*parts))[:5])
        extent = window[:, 2:] - window[:, :2]
        factor = np.full(len(extent), self.scale)
        if self.max_size is not None and len(extent):
            factor = np.minimum(factor, self.max_size / extent.max(axis=1))
        shrunk = np.rint(extent * factor[:, None]).clip(1).astype(int)
        return _Crops(image, row, label, box, window, shrunk)

    def _place(
        self, crops: _Crops, size: Tuple[int, int], max_canvases: int
    ) -> List[Optional[Placement]]:
        """Return where each crop lies."""
        if self.order == 'small':
            keys = crops.size.prod(axis=1)
        else:
            keys = torch.rand(len(crops.size)).numpy()
        order = balanced_order(crops.label, keys)
        found = pack_by_priority(
            crops.size[order].tolist(),
            width=size[1],
            height=size[0],
            max_canvases=max_canvases,
            gap=self.gap,
            align=self.stride,
        )
        places: List[Optional[Placement]] = [None] * len(order)
        for i, place in zip(order, found):
            places[i] = place
        return places

    @staticmethod
    def _draw(
        views: Sequence[Optional[Tensor]],
        crops: _Crops,
        places: List[Optional[Placement]],
        chosen: List[int],
        size: Tuple[int, int],
        blank: Tensor,
    ) -> Tuple[Tensor, Tensor]:
        """Return a canvas and the boxes (M', 4) on it."""
        first = views[crops.image[chosen[0]]]
        canvas = blank.to(first.device).repeat(1, *size)
        if not first.is_floating_point():
            info = torch.iinfo(first.dtype)
            canvas = canvas.round().clamp(info.min, info.max)
        canvas = canvas.to(first.dtype)
        for i in chosen:
            (x1, y1, x2, y2), (width, height) = crops.window[i].tolist(), crops.size[i].tolist()
            crop = views[crops.image[i]][:, y1:y2, x1:x2]
            if crop.shape[1:] != (height, width):
                small = F.interpolate(crop[None].float(), (height, width), mode='area')[0]
                crop = small if crop.is_floating_point() else small.round()
            _, x, y = places[i]
            canvas[:, y : y + height, x : x + width] = crop.to(canvas.dtype)

        window = crops.window[chosen]
        corner = np.array([places[i][1:] for i in chosen])
        factor = crops.size[chosen] / (window[:, 2:] - window[:, :2])
        # a box that leaves its image must not reach into the neighbour on the canvas
        box = np.clip(crops.box[chosen].reshape(-1, 2, 2), window[:, None, :2], window[:, None, 2:])
        box = (box - window[:, None, :2]) * factor[:, None] + corner[:, None]
        return canvas, torch.from_numpy(box.reshape(-1, 4)).float()

    @staticmethod
    def _make_sample(
        crops: _Crops,
        chosen: List[int],
        boxes: Tensor,
        size: Tuple[int, int],
        data_samples: Sequence[DetDataSample],
    ) -> DetDataSample:
        """Return the sample of a canvas."""
        template = data_samples[crops.image[chosen[0]]].gt_instances
        device = template.labels.device
        boxes = boxes.to(device)
        instances = InstanceData(
            bboxes=HorizontalBoxes(boxes) if isinstance(template.bboxes, BaseBoxes) else boxes,
            labels=torch.from_numpy(crops.label[chosen]).to(template.labels),
            source_image=torch.from_numpy(crops.image[chosen]).long().to(device),
            source_box=torch.from_numpy(crops.row[chosen]).long().to(device),
        )
        meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0), view=1, canvas=True)
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = instances
        # what the preprocessor and batch augmentations scale or pad in every sample
        sample.ignored_instances = InstanceData(
            bboxes=instances.bboxes[:0], labels=instances.labels[:0]
        )
        if 'masks' in template:
            corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].cpu().numpy()
            instances.masks = PolygonMasks([[outline] for outline in corners], *size)
        if any('gt_sem_seg' in s for s in data_samples):
            ignored = torch.full((1, *size), 255, dtype=torch.uint8, device=device)
            sample.gt_sem_seg = PixelData(sem_seg=ignored)
        return sample


def _wanted(instances: InstanceData) -> np.ndarray:
    """Return (G,) bool: which boxes may be contrasted."""
    if 'view_valid' not in instances:
        return np.ones(len(instances), dtype=bool)
    return instances.view_valid.cpu().numpy()
