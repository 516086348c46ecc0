"""A bounded store of object crops, by class."""

from typing import Dict, Hashable, Optional

import numpy as np

from mmdet_contrast.datasets.transforms._patches import resize_patch


class ObjectBank:
    """Keep crops of objects, to be drawn by class: the store of the same-class view.

    Each image adds one object of each of its classes, chosen at random. A class keeps the crops of
    the ``max_per_class`` images that came last, so that memory is bounded by ``classes *
    max_per_class * max_side**2`` pixels. An image that comes again replaces its own crops, and an
    object is never filled from its own image.

    Args:
        max_per_class (int): Largest number of crops of a class.
        min_size (int): Smallest side in pixels of an object that is kept.
        max_side (int): Larger crops are kept reduced to this longer side, in pixels.

    Examples:
        >>> bank = ObjectBank(min_size=4)
        >>> img = np.zeros((16, 16, 3), np.uint8)
        >>> bank.add(img, pixels=np.array([[0, 0, 8, 6]]), labels=np.array([5]), image=0)
        >>> bank.draw(5, like=img, image=1).shape
        (6, 8, 3)
        >>> bank.draw(5, like=img, image=0) is None
        True
    """

    def __init__(self, max_per_class: int = 32, min_size: int = 16, max_side: int = 128) -> None:
        self.max_per_class = max_per_class
        self.min_size = min_size
        self.max_side = max_side
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
            factor = min(1, self.max_side / max(x2 - x1, y2 - y1))
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
            f'{type(self).__name__}(max_per_class={self.max_per_class}, '
            f'min_size={self.min_size}, max_side={self.max_side})'
        )


def _key(label: int, img: np.ndarray) -> tuple:
    return int(label), img.dtype, img.shape[2:]
