"""The second view of an image: each object filled with a zoom of itself, or with another object."""

from typing import List, Optional, Tuple

import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes

from mmdet_contrast.datasets.transforms._patches import (
    covered_share,
    resize_patch,
    whole_pixels,
    zoom_centre,
)
from mmdet_contrast.datasets.transforms.object_bank import ObjectBank


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

    - ``img_view`` (np.ndarray): the view, shape and dtype of ``img``; None, without the other keys,
      where ``prob`` leaves the image without a view.
    - ``gt_view_valid`` (np.ndarray): (M,) bool, True for boxes that may be contrasted.
    - ``gt_view_source`` (np.ndarray): (M, 4) the boxes that the view was made from;
      ``PackContrastiveInputs`` checks that no later transform moved them.
    - ``gt_bboxes_view``: the boxes in the view, type of ``gt_bboxes``; only with ``transforms``.

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
        bank (dict, optional): Arguments of :class:`ObjectBank`; only with ``fill='same_class'``.
        prob (float): Probability that an image gets a view. Images without a view are handled by
            the sampler of ``RegionContrast``.

    Raises:
        ValueError: If a zoom factor could be below 1, ``fill`` is unknown, or ``bank`` is given
            where none is used.

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
        prob: float = 1.0,
    ) -> None:
        if min(zoom_range) < 1:
            raise ValueError(f'zoom_range={zoom_range} given, factors of at least 1 expected.')
        if fill not in ('zoom', 'same_class'):
            raise ValueError(f"fill={fill!r} given, 'zoom' or 'same_class' expected.")
        if fill == 'zoom' and bank is not None:
            raise ValueError("bank is used with fill='same_class' only: set that, or remove bank.")
        self.zoom_range = tuple(zoom_range)
        self.min_size = min_size
        self.max_overwritten = max_overwritten
        # Compose builds dicts from mmcv's registry, which does not know MMDetection's transforms
        self.transforms = transforms and Compose(
            [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in transforms]
        )
        self.bank = ObjectBank(**(bank or {})) if fill == 'same_class' else None
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Add the view to the results of one image; nothing that is there is changed.

        Args:
            results (dict): Results of the pipeline, see the class for the keys.

        Returns:
            dict: The same dict with the added keys.

        Raises:
            ValueError: If ``transforms`` dropped or reordered boxes, or resized the view.
        """
        if np.random.rand() >= self.prob:
            results['img_view'] = None
            return results
        img, boxes = results['img'], _as_array(results['gt_bboxes'])
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
            valid &= self._still_shown(boxes, _as_array(moved), img.shape[:2])
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

    def _augment(self, view: np.ndarray, boxes, ignored: np.ndarray) -> Tuple[np.ndarray, object]:
        """Run ``transforms`` on the view; return it and its boxes in the order of ``boxes``."""
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
                "ContrastiveView: its 'transforms' dropped or reordered boxes of the view; use "
                'only transforms that keep every box (photometric ones, RandomFlip, …).'
            )
        out, moved = data['img'], data['gt_bboxes']
        if out.shape != view.shape:
            raise ValueError(
                f"ContrastiveView: its 'transforms' changed the view from shape {view.shape} to "
                f'{out.shape}; put resizing and cropping before ContrastiveView.'
            )
        if out.dtype != view.dtype:
            if np.issubdtype(view.dtype, np.integer):
                info = np.iinfo(view.dtype)
                out = np.clip(np.rint(out), info.min, info.max)
            out = out.astype(view.dtype)
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
            f'bank={self.bank}, prob={self.prob})'
        )


def _as_array(boxes) -> np.ndarray:
    boxes = boxes.numpy() if isinstance(boxes, BaseBoxes) else np.asarray(boxes)
    return boxes.reshape(-1, 4)
