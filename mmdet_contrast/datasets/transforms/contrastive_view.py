"""The second view of an image: each object filled with a zoom of itself, or with another object."""

from typing import Any, Dict, Hashable, List, Optional, Tuple

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes, get_box_tensor

# Crops of objects are kept reduced to this longer side, in pixels.
_MAX_SIDE = 128


class ObjectBank:
    """Keep crops of objects, to be drawn by class: the store of the same-class view.

    Each image adds one object of each of its classes, chosen at random. A class keeps the crops of
    the ``max_per_class`` images that came last, reduced to at most 128 pixels to a side, so that
    memory is bounded. An image that comes again replaces its own crops, and an
    object is never filled from its own image (those of a ``Mosaic`` count as one).

    Args:
        max_per_class (int): Largest number of crops of a class.
        min_size (int): Smallest side in pixels of an object that is kept.

    Examples:
        >>> bank = ObjectBank(min_size=4)
        >>> img = np.zeros((16, 16, 3), np.uint8)
        >>> bank.add(img, pixels=np.array([[0, 0, 8, 6]]), labels=np.array([5]), image=0)
        >>> bank.draw(5, like=img, image=1).shape
        (6, 8, 3)
        >>> bank.draw(5, like=img, image=0) is None
        True
    """

    def __init__(self, max_per_class: int = 32, min_size: int = 16) -> None:
        self.max_per_class = max_per_class
        self.min_size = min_size
        # by class and kind of image, then by image, oldest first
        self._crops: Dict[tuple, Dict[Hashable, np.ndarray]] = {}

    def add(self, img: np.ndarray, pixels: np.ndarray, labels: np.ndarray, image: Hashable) -> None:
        """Keep one object of each class of an image.

        Args:
            img (ndarray): (H, W) or (H, W, C); copied from.
            pixels (ndarray): (M, 4) int boxes within the image, (x1, y1, x2, y2).
            labels (ndarray): (M,) class indices.
            image (Hashable): Identifies the image.
        """
        for crops in self._crops.values():
            crops.pop(image, None)
        fits = (pixels[:, 2:] - pixels[:, :2] >= self.min_size).all(axis=1)
        for label in np.unique(labels[fits]):
            x1, y1, x2, y2 = pixels[np.random.choice(np.flatnonzero(fits & (labels == label)))]
            factor = min(1, _MAX_SIDE / max(x2 - x1, y2 - y1))
            size = (max(1, round(side * factor)) for side in (x2 - x1, y2 - y1))
            crops = self._crops.setdefault(_key(label, img), {})
            crops[image] = resize_patch(img[y1:y2, x1:x2], *size)
            if len(crops) > self.max_per_class:
                del crops[next(iter(crops))]

    def draw(self, label: int, like: np.ndarray, image: Hashable) -> Optional[np.ndarray]:
        """Draw a crop of a class at random.

        Args:
            label (int): Class index.
            like (ndarray): Image to draw for: only crops of its dtype and channels are used.
            image (Hashable): Identifies that image; its own crops are not drawn.

        Returns:
            ndarray: (h, w) or (h, w, C), not to be changed; None where there is no such crop.
        """
        crops = self._crops.get(_key(label, like), {})
        others = [crop for source, crop in crops.items() if source != image]
        return others[np.random.randint(len(others))] if others else None

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(max_per_class={self.max_per_class}, min_size={self.min_size})'
        )


def _key(label: int, img: np.ndarray) -> tuple:
    return int(label), img.dtype, img.shape[2:]


@TRANSFORMS.register_module()
class ContrastiveView(BaseTransform):
    """Make a second view in which each object shows a zoom of its centre, or another object.

    For a box of size ``w x h`` and a factor ``z`` drawn uniformly from ``zoom_range``, the region
    of size ``w/z x h/z`` around the centre is resized to ``w x h`` and pasted over the box. Only
    the boxes are touched, so the cost grows with the objects and not with the picture.

    With ``fill='same_class'`` the box shows a random object of its class from another image
    instead, resized to the box. The objects come from an :class:`ObjectBank` that each process
    fills from the images it loads. While the bank holds none of the class, the object is zoomed.

    Larger boxes are pasted first, so that no box destroys a smaller one in front of it. A box of
    which smaller ones repainted more than ``max_overwritten`` is marked and takes no part in the
    contrastive loss. Boxes are clipped to the image. Boxes with a side under ``min_size`` keep
    their own pixels and are marked. Ignored ones (``gt_ignore_flags``) are marked and not pasted.

    Random numbers come from NumPy's global state, as in MMDetection's own transforms.

    Required keys: ``img``, ``gt_bboxes``; ``gt_bboxes_labels`` with ``fill='same_class'``. Optional
    keys: ``gt_ignore_flags``, ``sample_idx``.

    Added keys:

    - ``img_view`` (np.ndarray): the view, shape and dtype of ``img``.
    - ``gt_view_valid`` (np.ndarray): (M,) bool, True for boxes that may be contrasted.
    - ``gt_view_source`` (np.ndarray): (M, 4) the boxes that the view was made from;
      ``PackContrastiveInputs`` checks that no later transform moved them.
    - ``gt_bboxes_view``: the boxes in the view, type of ``gt_bboxes``; only if ``transforms``
      moved something.

    Args:
        zoom_range (tuple[float, float]): Bounds of the zoom factor, at least 1.
        min_size (int): Smallest side in pixels of a box that is filled.
        max_overwritten (float): Largest share, in [0, 1], of a box's view that other boxes may
            have repainted before the box is marked.
        transforms (list[dict], optional): MMDetection transforms applied to the finished view
            with its boxes (photometric ones, ``RandomFlip``, …). They must keep the size of the
            image, and every box in its place in the list.
        fill (str): What a box shows: 'zoom' (its own centre) or 'same_class' (another object of
            its class). Defaults to 'zoom'.
        bank (dict, optional): Arguments of :class:`ObjectBank`, for ``fill='same_class'``.

    Raises:
        ValueError: If a zoom factor could be below 1.

    Examples:
        >>> train_pipeline = [
        ...     dict(type='LoadImageFromFile'),
        ...     dict(type='LoadAnnotations', with_bbox=True),
        ...     dict(type='Resize', scale=(1333, 800), keep_ratio=True),
        ...     dict(type='RandomFlip', prob=0.5),
        ...     # after every step that moves or drops boxes
        ...     dict(type='ContrastiveView', zoom_range=(2.0, 3.0)),
        ...     dict(type='PackContrastiveInputs'),
        ... ]
    """

    def __init__(
        self,
        zoom_range: Tuple[float, float] = (2.0, 3.0),
        min_size: int = 8,
        max_overwritten: float = 0.5,
        transforms: Optional[List[dict]] = None,
        fill: str = 'zoom',
        bank: Optional[dict] = None,
    ) -> None:
        if min(zoom_range) < 1:
            raise ValueError(f'zoom_range={zoom_range}, expected factors of at least 1.')
        self.zoom_range = tuple(zoom_range)
        self.min_size = min_size
        self.max_overwritten = max_overwritten
        # Compose builds dicts from mmcv's registry, which does not know MMDetection's transforms
        self.transforms = transforms and Compose(
            [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in transforms]
        )
        self.bank = {'zoom': None, 'same_class': ObjectBank(**(bank or {}))}[fill]

    def transform(self, results: dict) -> dict:
        """Add the view to the results of one image; nothing that is there is changed.

        Args:
            results (dict): Results of the pipeline, see the class for the keys.

        Returns:
            dict: The same dict with the added keys.

        Raises:
            ValueError: If ``transforms`` dropped or reordered boxes.
        """
        img, boxes = results['img'], box_array(results['gt_bboxes'])
        ignored = np.asarray(results.get('gt_ignore_flags', np.zeros(len(boxes))), dtype=bool)
        pixels = whole_pixels(boxes, img.shape[:2])
        sides = pixels[:, 2:] - pixels[:, :2]
        pasted = ~ignored & (sides > 0).all(axis=1)
        filled = pasted & (sides >= self.min_size).all(axis=1)
        # larger first, so that small objects end up in front
        order = [i for i in np.argsort(-sides.prod(axis=1), kind='stable') if pasted[i]]

        view, valid = img.copy(), filled.copy()
        for rank, i in enumerate(order):
            x1, y1, x2, y2 = pixels[i]
            patch = img[y1:y2, x1:x2]
            if filled[i]:
                share = covered_share(pixels[i], pixels[order[rank + 1 :]])
                valid[i] = share <= self.max_overwritten
                patch = self._fill(patch, i, results)
            # a box too small to be filled gets its own pixels back on top
            view[y1:y2, x1:x2] = patch
        if self.bank is not None:
            labels = np.asarray(results['gt_bboxes_labels'])
            image = results.get('sample_idx', object())
            self.bank.add(img, pixels[valid], labels[valid], image)
        if self.transforms:
            view, moved = self._augment(view, results['gt_bboxes'], ignored)
            if moved is not None:
                valid &= self._still_shown(boxes, box_array(moved), img.shape[:2])
                results['gt_bboxes_view'] = moved
        results['img_view'] = view
        results['gt_view_valid'] = valid
        results['gt_view_source'] = boxes.copy()
        return results

    def _fill(self, patch: np.ndarray, row: int, results: dict) -> np.ndarray:
        """Return the new content of a box, of the shape of ``patch``."""
        if self.bank is not None:
            label, image = results['gt_bboxes_labels'][row], results.get('sample_idx')
            other = self.bank.draw(label, results['img'], image)
            if other is not None:
                return resize_patch(other, patch.shape[1], patch.shape[0])
        return zoom_centre(patch, np.random.uniform(*self.zoom_range))

    def _augment(self, view: np.ndarray, boxes, ignored: np.ndarray) -> Tuple[np.ndarray, Any]:
        """Run ``transforms`` on the view; return it, and its boxes if something was moved."""
        rows = np.arange(len(boxes))
        data = self.transforms(
            dict(
                img=view,
                img_shape=view.shape[:2],
                gt_bboxes=(
                    boxes.clone() if isinstance(boxes, BaseBoxes) else HorizontalBoxes(boxes.copy())
                ),
                # transforms carry labels along, so row numbers in their place show the order
                gt_bboxes_labels=rows.copy(),
                gt_ignore_flags=ignored.copy(),
            )
        )
        if data is None or not np.array_equal(data['gt_bboxes_labels'], rows):
            raise ValueError(
                "ContrastiveView: its 'transforms' dropped or reordered boxes: use only transforms "
                'that keep every box (photometric ones, RandomFlip, …).'
            )
        out, moved = data['img'], data['gt_bboxes']
        if out.dtype != view.dtype:
            if np.issubdtype(view.dtype, np.integer):
                info = np.iinfo(view.dtype)
                out = np.clip(np.rint(out), info.min, info.max)
            out = out.astype(view.dtype)
        # MMDetection's transforms note it, which an image without boxes does not show
        same = np.array_equal(box_array(moved), box_array(boxes))
        if same and 'homography_matrix' not in data:
            return out, None
        return out, moved if isinstance(boxes, BaseBoxes) else moved.numpy().astype(boxes.dtype)

    def _still_shown(
        self, before: np.ndarray, after: np.ndarray, shape: Tuple[int, int]
    ) -> np.ndarray:
        """Return which boxes ``transforms`` left in the image, at least ``min_size`` of them."""
        limits = np.array([shape[1], shape[0]])
        corners = [np.clip(boxes.reshape(-1, 2, 2), 0, limits) for boxes in (before, after)]
        old, new = (pair[:, 1] - pair[:, 0] for pair in corners)
        # a flip returns boxes within rounding; one smaller than the rest must have lost nothing
        return (new >= np.minimum(old, self.min_size) - 1e-3).all(axis=1)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(zoom_range={self.zoom_range}, min_size={self.min_size}, '
            f'max_overwritten={self.max_overwritten}, transforms={self.transforms}, '
            f'bank={self.bank})'
        )


def box_array(boxes) -> np.ndarray:
    """Give boxes of any type as an (M, 4) array."""
    return np.asarray(get_box_tensor(boxes)).reshape(-1, 4)


def whole_pixels(boxes: np.ndarray, shape: Tuple[int, int]) -> np.ndarray:
    """Round (M, 4) boxes to whole pixels within an image of ``shape`` (height, width).

    Boxes upside down, or with a coordinate that is not finite, get an area of zero.
    """
    limits = np.array([shape[1], shape[0], shape[1], shape[0]])
    boxes = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0)
    pixels = np.clip(np.rint(boxes), 0, limits).astype(int)
    pixels[:, 2:] = np.maximum(pixels[:, 2:], pixels[:, :2])
    return pixels


def resize_patch(patch: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize a patch of any dtype: area average where it shrinks, bilinear where it grows."""
    dtype = patch.dtype
    # cv2 resizes few dtypes; float64 holds the values of all others
    out = patch if dtype == np.uint8 else patch.astype(np.float64)
    # two steps, because bilinear sampling of a side that shrinks skips most of its pixels
    smaller = min(width, patch.shape[1]), min(height, patch.shape[0])
    out = cv2.resize(out, smaller, interpolation=cv2.INTER_AREA)
    out = cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR)
    if dtype != np.uint8:
        out = np.clip(out, patch.min(), patch.max())
        out = (out if np.issubdtype(dtype, np.floating) else np.rint(out)).astype(dtype)
    return out.reshape(height, width, *patch.shape[2:])


def zoom_centre(patch: np.ndarray, zoom: float) -> np.ndarray:
    """Enlarge the central ``1/zoom`` of a patch to the size of the patch."""
    height, width = patch.shape[:2]
    crop_h, crop_w = max(1, round(height / zoom)), max(1, round(width / zoom))
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    return resize_patch(patch[top : top + crop_h, left : left + crop_w], width, height)


def covered_share(box: np.ndarray, others: np.ndarray) -> float:
    """Compute the share of a (4,) box's pixels that the union of (K, 4) other boxes covers."""
    x1, y1, x2, y2 = box
    # of hundreds of boxes few are near
    others = others[((others[:, :2] < box[2:]) & (others[:, 2:] > box[:2])).all(axis=1)]
    covered = np.zeros((y2 - y1, x2 - x1), dtype=bool)
    for left, top, right, bottom in np.clip(others, [x1, y1, x1, y1], [x2, y2, x2, y2]):
        covered[top - y1 : bottom - y1, left - x1 : right - x1] = True
    return float(covered.mean())
