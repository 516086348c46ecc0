"""The second view of an image: every object filled with a zoom of itself, or another object."""

import random
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawValue
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes
from mmengine.dist import get_rank
from torch.utils.data import get_worker_info

from mmdet_contrast.datasets.transforms._patches import (
    covered_share,
    fit_patch,
    paste_patch,
    whole_pixels,
    zoom_centre,
)
from mmdet_contrast.datasets.transforms.object_bank import ObjectBank

_FILLS = ('zoom', 'same_class', 'mixed')
_FITS = ('stretch', 'crop')


@TRANSFORMS.register_module()
class ContrastiveView(BaseTransform):
    """Make a second view in which each object shows a zoom of its centre, or another object.

    For a box of size ``w x h`` and a factor ``z`` drawn from ``zoom_range``, the region of size
    ``w/z x h/z`` around the centre is resized to ``w x h`` and pasted over the box. Only the
    boxes are touched, so the cost grows with the objects and not with the picture.

    With ``fill='same_class'`` the box shows a random object of its class instead, resized to fit,
    from an :class:`ObjectBank`: the objects of the images that this process has seen, with the
    image's own ones, but never the object itself. While the bank holds none of the class, the
    object is zoomed. ``fill='mixed'`` decides at random for each box.

    Larger boxes are pasted first, so that an object in front is never destroyed by one behind
    it. What that costs the one behind is measured: a box of whose view more than
    ``max_overwritten`` was repainted by others is marked and takes no part in the contrastive
    loss. Boxes are clipped to the image. Boxes with a side under ``min_size`` keep their own
    pixels and are marked, as are ignored ones (``gt_ignore_flags``).

    **Randomness.** The draws for an image depend on MMEngine's seed, the epoch and the index of
    the image in the data set, not on the worker that handles it: any number of workers gives the
    same views. The epoch is told by :class:`mmdet_contrast.engine.hooks.ViewEpochHook`. An image
    that a process meets again in one epoch (a data set that repeats images, iteration-based
    training, no hook) is drawn anew, and these further views do depend on the number of workers;
    without the hook workers have to be persistent, as new ones begin with the first views again.
    Persistent workers that were spawned, not forked, are told the epoch they began in alone.
    Called outside a data set (no ``sample_idx`` in the results), NumPy's global state is used, as
    by MMDetection's own transforms. The contents of the bank follow from the images that a worker
    has seen: views filled from it do depend on the number of workers, and the bank of a new
    process is empty, also after resuming.

    Required keys: ``img``, ``gt_bboxes``, and ``gt_bboxes_labels`` unless ``fill='zoom'``; optional
    ``gt_ignore_flags``, ``sample_idx``.

    Added keys:

    - ``img_view`` (np.ndarray): the view, shape and dtype of ``img``; None, without the others,
      where ``prob`` leaves the image without one.
    - ``gt_view_valid`` (np.ndarray): (M,) bool, True for boxes that may be contrasted.
    - ``gt_view_source`` (np.ndarray): (M, 4) the boxes as they were, for
      ``PackContrastiveInputs`` to see whether a later transform moved them; one that moves image,
      view and boxes together sets it anew.
    - ``gt_bboxes_view``: the boxes in the view, type of ``gt_bboxes``; only with ``transforms``.
    - ``gt_view_same_class`` (np.ndarray): (M,) bool, True for boxes filled with another object;
      only with ``fill`` 'same_class' or 'mixed'.

    Args:
        zoom_range (tuple[float, float]): Bounds of the uniform zoom factor, ``1 <= low <= high``.
        min_size (int): Smallest side in pixels of a box that is zoomed; at least 1.
        max_overwritten (float): Largest share, in [0, 1], of a box's view that other boxes may
            have repainted before the box is marked.
        transforms (list[dict], optional): MMDetection transforms applied to the finished view
            with its boxes (photometric ones, ``RandomFlip``, …). They must keep the size of the
            image and every box in its place in the list.
        fill (str): What a box shows: 'zoom' (its own centre), 'same_class' (another object of its
            class) or 'mixed'. Defaults to 'zoom'.
        same_class_prob (float): With ``fill='mixed'``, the probability, in [0, 1], that a box is
            filled as with 'same_class'.
        bank (dict, optional): Arguments of :class:`ObjectBank`; not with ``fill='zoom'``.
        fit (str): How the other object is brought to the size of the box: 'stretch' shows all of
            it, 'crop' keeps its aspect ratio and cuts off what stands out on both sides.
        soft_edges (float): Width, inside the box, over which its new content fades into what lies
            beneath: below 1 a share of each side (at most 0.5), from 1 on pixels (at most half of
            the side). Defaults to 0, hard edges.
        prob (float): The probability, above 0, that an image gets a view at all; what becomes of
            the others is said by ``RegionContrast(key_source=...)``. The bank does not see them.

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

    # Shared with worker processes that were forked long ago (persistent workers); a plain
    # attribute would only change in the main process.
    _epoch = RawValue('q', 0)

    def __init__(
        self,
        zoom_range: Tuple[float, float] = (2.0, 3.0),
        min_size: int = 8,
        max_overwritten: float = 0.5,
        transforms: Optional[List[dict]] = None,
        fill: str = 'zoom',
        same_class_prob: float = 0.5,
        bank: Optional[dict] = None,
        fit: str = 'stretch',
        soft_edges: float = 0.0,
        prob: float = 1.0,
    ) -> None:
        if len(zoom_range) != 2 or not 1 <= zoom_range[0] <= zoom_range[1] < float('inf'):
            raise ValueError(
                f'zoom_range={zoom_range!r} given, two finite numbers 1 <= low <= high expected: '
                'a factor below 1 would need pixels from outside the box.'
            )
        if min_size < 1:
            raise ValueError(f'min_size={min_size} given, at least 1 pixel expected.')
        if not 0 <= max_overwritten <= 1:
            raise ValueError(
                f'max_overwritten={max_overwritten} given, a share between 0 and 1 expected.'
            )
        for name, value, known in (('fill', fill, _FILLS), ('fit', fit, _FITS)):
            if value not in known:
                raise ValueError(f'{name}={value!r} given, one of {", ".join(known)} expected.')
        if not 0 <= same_class_prob <= 1:
            raise ValueError(
                f'same_class_prob={same_class_prob} given, a probability between 0 and 1 expected.'
            )
        if bank is not None and fill == 'zoom':
            raise ValueError(
                "bank is given, but fill='zoom' draws from none; set fill='same_class' or 'mixed'."
            )
        if not (0 <= soft_edges <= 0.5 or 1 <= soft_edges < float('inf')):
            raise ValueError(
                f'soft_edges={soft_edges} given, a share of the side from 0 to 0.5 or a number of '
                'pixels from 1 on expected.'
            )
        if not 0 < prob <= 1:
            raise ValueError(
                f'prob={prob} given, a probability above 0 and up to 1 expected: to make no views '
                'leave out ContrastiveView, and put PackDetInputs in place of '
                'PackContrastiveInputs.'
            )
        self.zoom_range = tuple(zoom_range)
        self.min_size = min_size
        self.max_overwritten = max_overwritten
        # mmcv's Compose resolves through mmcv's registry; built here so that MMDetection's
        # transforms are found whatever the default scope is.
        self.transforms = (
            Compose([TRANSFORMS.build(t) if isinstance(t, dict) else t for t in transforms])
            if transforms
            else None
        )
        self.fill = fill
        self.same_class_prob = same_class_prob
        self.bank = None if fill == 'zoom' else ObjectBank(**(bank or {}))
        self.fit = fit
        self.soft_edges = soft_edges
        self.prob = prob
        self._visits: Dict[int, Tuple[int, int]] = {}

    @classmethod
    def set_epoch(cls, epoch: int) -> None:
        """Tell every ``ContrastiveView``, in worker processes too, which epoch it is.

        Args:
            epoch (int): Number of finished epochs.
        """
        cls._epoch.value = int(epoch)

    def forget_visits(self) -> None:
        """Draw the next view of each image as if it were the first one of the epoch."""
        self._visits.clear()

    def transform(self, results: dict) -> dict:
        """Add the view to the results of one image; nothing that is there is changed.

        Args:
            results (dict): Results of the pipeline, see the class for the keys.

        Returns:
            dict: The same dict with the added keys.

        Raises:
            KeyError: If image or boxes are missing.
        """
        needed = [('img', 'LoadImageFromFile'), ('gt_bboxes', 'LoadAnnotations')]
        if self.bank is not None:
            needed.append(('gt_bboxes_labels', 'LoadAnnotations'))
        for key, source in needed:
            if results.get(key) is None:
                raise KeyError(
                    f"ContrastiveView found no '{key}' in the results (there are: "
                    f'{sorted(results)}); put it after {source} in the pipeline.'
                )
        rng = self._rng(results)
        if self.prob < 1 and rng.random() >= self.prob:
            results['img_view'] = None
            return results
        img, boxes = results['img'], results['gt_bboxes']
        array = boxes.numpy() if isinstance(boxes, BaseBoxes) else np.asarray(boxes)
        array = array.reshape(-1, 4)
        ignored = np.asarray(results.get('gt_ignore_flags', np.zeros(len(array))), dtype=bool)

        pixels = whole_pixels(array, img.shape[:2])
        zooms = rng.uniform(*self.zoom_range, size=len(pixels))
        fit, order, shares = self._overlaps(pixels, ignored)
        valid = fit & (shares <= self.max_overwritten)
        others: Dict[int, np.ndarray] = {}
        if self.bank is not None:
            others = self._others(results, pixels, fit, valid, shares, rng)
            results['gt_view_same_class'] = np.isin(np.arange(len(pixels)), list(others))
        view = self._paste(img, pixels, fit, order, zooms, others)
        if self.transforms is not None:
            view, results['gt_bboxes_view'] = self._augment(view, boxes, ignored, rng)
            valid &= self._still_shown(array, results['gt_bboxes_view'], img.shape[:2])
        results['img_view'] = view
        results['gt_view_valid'] = valid
        results['gt_view_source'] = array.copy()
        return results

    def _overlaps(
        self, pixels: np.ndarray, ignored: np.ndarray
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return which boxes get new content, the order of pasting, and how far each is covered."""
        sides = pixels[:, 2:] - pixels[:, :2]
        fit = (sides.min(axis=1, initial=np.iinfo(int).max) >= self.min_size) & ~ignored
        painted = ~ignored & (sides > 0).all(axis=1)
        order = np.argsort(-sides.prod(axis=1), kind='stable')
        order = order[painted[order]]
        shares = np.zeros(len(pixels))
        for rank, i in enumerate(order):
            if fit[i]:
                shares[i] = covered_share(pixels[i], pixels[order[rank + 1 :]])
        return fit, order, shares

    def _others(
        self,
        results: dict,
        pixels: np.ndarray,
        fit: np.ndarray,
        valid: np.ndarray,
        shares: np.ndarray,
        rng: np.random.Generator,
    ) -> Dict[int, np.ndarray]:
        """Show the image to the bank; return the other objects, by the row they are to fill."""
        img, labels = results['img'], np.asarray(results['gt_bboxes_labels'])
        chances, choices = rng.random((2, len(pixels)))
        # a generator of its own: how often the bank draws depends on what it holds, and nothing
        # else may depend on that
        bank_rng = np.random.default_rng(rng.integers(2**63))
        image = results.get('sample_idx')
        image = object() if image is None else int(image)
        self.bank.add(img, pixels, labels, shares, image, bank_rng, candidates=valid)
        wanted = fit & ((chances < self.same_class_prob) | (self.fill == 'same_class'))
        drawn = {
            int(i): self.bank.draw(labels[i], img, image, int(i), choices[i])
            for i in np.flatnonzero(wanted)
        }
        return {row: crop for row, crop in drawn.items() if crop is not None}

    def _paste(
        self,
        img: np.ndarray,
        pixels: np.ndarray,
        fit: np.ndarray,
        order: np.ndarray,
        zooms: np.ndarray,
        others: Dict[int, np.ndarray],
    ) -> np.ndarray:
        """Return the view."""
        view = img.copy()
        for i in order:
            x1, y1, x2, y2 = pixels[i]
            region, patch = view[y1:y2, x1:x2], img[y1:y2, x1:x2]
            if not fit[i]:
                # a box too small to be filled still needs its own pixels back on top
                region[:] = patch
                continue
            if int(i) in others:
                patch = fit_patch(others[int(i)], x2 - x1, y2 - y1, self.fit == 'crop')
            else:
                patch = zoom_centre(patch, zooms[i])
            paste_patch(region, patch, self.soft_edges)
        return view

    def _augment(
        self, view: np.ndarray, boxes, ignored: np.ndarray, rng: np.random.Generator
    ) -> Tuple[np.ndarray, object]:
        """Run ``transforms`` on the view; return it and its boxes in the order of ``boxes``."""
        count = len(boxes)
        wrapped = boxes.clone() if isinstance(boxes, BaseBoxes) else HorizontalBoxes(boxes.copy())
        data = dict(
            img=view,
            img_shape=view.shape[:2],
            gt_bboxes=wrapped,
            # the transforms carry the labels along, so positions put there come back as the
            # correspondence between the two views
            gt_bboxes_labels=np.arange(count),
            gt_ignore_flags=ignored.copy(),
        )
        with _numpy_seed(int(rng.integers(2**32))):
            data = self.transforms(data)
        if data is None or not np.array_equal(data['gt_bboxes_labels'], np.arange(count)):
            raise ValueError(
                "ContrastiveView: its 'transforms' dropped or reordered boxes of the view; use "
                'only transforms that keep every box (photometric ones, RandomFlip, …).'
            )
        if data['img'].shape != view.shape:
            raise ValueError(
                f"ContrastiveView: its 'transforms' changed the view from shape {view.shape} to "
                f'{data["img"].shape}; both views of an image must have one size, so put resizing '
                'and cropping before ContrastiveView.'
            )
        out = data['img']
        if out.dtype != view.dtype:
            if np.issubdtype(view.dtype, np.integer):
                info = np.iinfo(view.dtype)
                out = np.clip(np.rint(out), info.min, info.max)
            out = out.astype(view.dtype)
        moved = data['gt_bboxes']
        return out, moved if isinstance(boxes, BaseBoxes) else moved.numpy().astype(boxes.dtype)

    def _still_shown(self, before: np.ndarray, moved: object, shape: Tuple[int, int]) -> np.ndarray:
        """Return which boxes ``transforms`` left in the image, at least ``min_size`` of them."""
        after = moved.numpy() if isinstance(moved, BaseBoxes) else np.asarray(moved)
        limits = np.array([shape[1], shape[0]])
        corners = [np.clip(boxes.reshape(-1, 2, 2), 0, limits) for boxes in (before, after)]
        old, new = (pair[:, 1] - pair[:, 0] for pair in corners)
        # a flip returns boxes within rounding; one smaller than the rest must have lost nothing
        return (new >= np.minimum(old, self.min_size) - 1e-3).all(axis=1)

    def _rng(self, results: dict) -> np.random.Generator:
        """Generator for one image, the same in whichever process the image is handled."""
        index = results.get('sample_idx')
        if index is None:
            return np.random.default_rng(np.random.randint(2**31))
        seed, epoch = torch.initial_seed(), int(self._epoch.value)
        worker = get_worker_info()
        if worker is not None:
            # undo MMEngine's worker_init_fn: num_workers * rank + worker_id + seed
            seed -= worker.id + worker.num_workers * get_rank()
        last_epoch, visit = self._visits.get(index, (epoch, -1))
        visit = visit + 1 if last_epoch == epoch else 0
        self._visits[index] = (epoch, visit)
        return np.random.default_rng([seed % 2**64, epoch, int(index) % 2**64, visit])

    def __getstate__(self) -> dict:
        # a process that is spawned, not forked, imports this module anew, with an epoch of 0
        return dict(self.__dict__, epoch_of_pickling=int(self._epoch.value))

    def __setstate__(self, state: dict) -> None:
        state = dict(state)
        self.set_epoch(max(state.pop('epoch_of_pickling'), int(self._epoch.value)))
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(zoom_range={self.zoom_range}, min_size={self.min_size}, '
            f'max_overwritten={self.max_overwritten}, transforms={self.transforms}, '
            f'fill={self.fill!r}, same_class_prob={self.same_class_prob}, bank={self.bank}, '
            f'fit={self.fit!r}, soft_edges={self.soft_edges}, prob={self.prob})'
        )


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed the global generators that transforms draw from, and put their states back."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
