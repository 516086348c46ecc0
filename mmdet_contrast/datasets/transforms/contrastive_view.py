"""The second view of an image: every object filled with a zoom of its own centre."""

import random
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawValue
from typing import Dict, Iterator, List, Optional, Tuple

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes
from mmengine.dist import get_rank
from torch.utils.data import get_worker_info

# cv2.resize knows no other depths; everything else takes the way through float64.
_CV2_DTYPES = ('uint8', 'uint16', 'int16', 'float32', 'float64')


@TRANSFORMS.register_module()
class ContrastiveView(BaseTransform):
    """Make a second view in which each object shows an enlarged copy of its own centre.

    For a box of size ``w x h`` and a factor ``z`` drawn from ``zoom_range``, the region of size
    ``w/z x h/z`` around the centre is resized to ``w x h`` and pasted over the box. Only the
    boxes are touched, so the cost grows with the objects and not with the picture.

    Larger boxes are pasted first, so that an object in front is never destroyed by one behind
    it. What that costs the one behind is measured: a box of whose view more than
    ``max_overwritten`` was repainted by others is marked and takes no part in the contrastive
    loss. Boxes are clipped to the image. Boxes with a side under ``min_size`` keep their own
    pixels and are marked, as are ignored ones (``gt_ignore_flags``).

    **Randomness.** The draws for an image depend on MMEngine's seed, the epoch and the index of
    the image in the data set, not on the worker that handles it: any number of workers gives the
    same views. The epoch is told by :class:`mmdet_contrast.engine.hooks.ViewEpochHook`; without
    it (or in iteration-based training) an image that a worker sees again is drawn anew, and from
    the second pass on the views do depend on the number of workers. Called outside a data set
    (no ``sample_idx`` in the results), NumPy's global state is used, as by MMDetection's own
    transforms.

    Required keys: ``img``, ``gt_bboxes``; optional ``gt_ignore_flags``, ``sample_idx``.

    Added keys:

    - ``img_view`` (np.ndarray): the view, shape and dtype of ``img``.
    - ``gt_view_valid`` (np.ndarray): (M,) bool, True for boxes that may be contrasted.
    - ``gt_bboxes_view``: the boxes in the view, type of ``gt_bboxes``; only with ``transforms``.

    Args:
        zoom_range (tuple[float, float]): Bounds of the uniform zoom factor, ``1 <= low <= high``.
        min_size (int): Smallest side in pixels of a box that is zoomed; at least 1.
        max_overwritten (float): Largest share, in [0, 1], of a box's view that other boxes may
            have repainted before the box is marked.
        transforms (list[dict], optional): MMDetection transforms applied to the finished view
            with its boxes (photometric ones, ``RandomFlip``, …). They must keep the size of the
            image and every box in its place in the list.

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
        self._visits: Dict[int, Tuple[int, int]] = {}

    @classmethod
    def set_epoch(cls, epoch: int) -> None:
        """Tell every ``ContrastiveView``, in worker processes too, which epoch it is.

        Args:
            epoch (int): Number of finished epochs.
        """
        cls._epoch.value = int(epoch)

    def transform(self, results: dict) -> dict:
        """Add the view to the results of one image; nothing that is there is changed.

        Args:
            results (dict): Results of the pipeline, see the class for the keys.

        Returns:
            dict: The same dict with the added keys.

        Raises:
            KeyError: If image or boxes are missing.
        """
        for key, source in (('img', 'LoadImageFromFile'), ('gt_bboxes', 'LoadAnnotations')):
            if results.get(key) is None:
                raise KeyError(
                    f"ContrastiveView found no '{key}' in the results (there are: "
                    f'{sorted(results)}); put it after {source} in the pipeline.'
                )
        rng = self._rng(results)
        img, boxes = results['img'], results['gt_bboxes']
        array = boxes.numpy() if isinstance(boxes, BaseBoxes) else np.asarray(boxes)
        array = array.reshape(-1, 4)
        ignored = np.asarray(results.get('gt_ignore_flags', np.zeros(len(array))), dtype=bool)

        view, valid = self._paste(img, array, ignored, rng)
        if self.transforms is not None:
            view, results['gt_bboxes_view'] = self._augment(view, boxes, ignored, rng)
        results['img_view'] = view
        results['gt_view_valid'] = valid
        return results

    def _paste(
        self, img: np.ndarray, boxes: np.ndarray, ignored: np.ndarray, rng: np.random.Generator
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Return the view and which boxes of it are fit to be contrasted."""
        height, width = img.shape[:2]
        zooms = rng.uniform(*self.zoom_range, size=len(boxes))
        limits = np.array([width, height, width, height])
        # non-finite boxes become empty ones, which are marked like every box without pixels
        pixels = np.nan_to_num(np.rint(boxes), nan=0.0)
        pixels = np.clip(pixels, 0, limits).astype(int)
        sides = np.clip(pixels[:, 2:] - pixels[:, :2], 0, None)
        valid = (sides.min(axis=1, initial=np.iinfo(int).max) >= self.min_size) & ~ignored
        painted = ~ignored & (sides > 0).all(axis=1)

        view = img.copy()
        order = np.argsort(-sides.prod(axis=1), kind='stable')
        order = order[painted[order]]
        for i in order:
            x1, y1, x2, y2 = pixels[i]
            # a box too small to be zoomed still needs its own pixels back on top
            patch = img[y1:y2, x1:x2]
            view[y1:y2, x1:x2] = _zoom_centre(patch, zooms[i]) if valid[i] else patch
        for rank, i in enumerate(order):
            if valid[i]:
                share = _covered_share(pixels[i], pixels[order[rank + 1 :]])
                valid[i] = share <= self.max_overwritten
        return view, valid

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

    def _rng(self, results: dict) -> np.random.Generator:
        """Generator for one image, the same in whichever process the image is handled."""
        index = results.get('sample_idx')
        if index is None:
            return np.random.default_rng(np.random.randint(2**31))
        seed, epoch, visit = torch.initial_seed(), int(self._epoch.value), 0
        worker = get_worker_info()
        if worker is not None:
            # undo MMEngine's worker_init_fn: num_workers * rank + worker_id + seed
            seed -= worker.id + worker.num_workers * get_rank()
            last_epoch, visit = self._visits.get(index, (epoch, -1))
            visit = visit + 1 if last_epoch == epoch else 0
            self._visits[index] = (epoch, visit)
        return np.random.default_rng([seed % 2**64, epoch, int(index) % 2**64, visit])

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(zoom_range={self.zoom_range}, min_size={self.min_size}, '
            f'max_overwritten={self.max_overwritten}, transforms={self.transforms})'
        )


def _zoom_centre(patch: np.ndarray, zoom: float) -> np.ndarray:
    """Enlarge the central ``1/zoom`` of a patch to the size of the patch."""
    height, width = patch.shape[:2]
    crop_h, crop_w = max(1, round(height / zoom)), max(1, round(width / zoom))
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    crop = patch[top : top + crop_h, left : left + crop_w]
    if crop.dtype.name in _CV2_DTYPES:
        out = cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        out = cv2.resize(crop.astype(np.float64), (width, height), interpolation=cv2.INTER_LINEAR)
        if np.issubdtype(crop.dtype, np.integer):
            out = np.rint(out)
        out = out.astype(crop.dtype)
    return out.reshape(patch.shape)


def _covered_share(box: np.ndarray, others: np.ndarray) -> float:
    """Share of the pixels of ``box`` that the union of ``others`` covers."""
    x1, y1, x2, y2 = box
    clipped = np.clip(others, [x1, y1, x1, y1], [x2, y2, x2, y2]) - [x1, y1, x1, y1]
    clipped = clipped[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)]
    if len(clipped) == 0:
        return 0.0
    covered = np.zeros((y2 - y1, x2 - x1), dtype=bool)
    for left, top, right, bottom in clipped:
        covered[top:bottom, left:right] = True
    return float(covered.mean())


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
