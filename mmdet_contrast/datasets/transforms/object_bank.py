"""A bounded store of object crops, by class."""

from typing import Dict, Hashable, List, NamedTuple, Optional

import numpy as np

from mmdet_contrast.datasets.transforms._patches import resize_patch


class _Crop(NamedTuple):
    image: Hashable
    row: int
    pixels: np.ndarray


class ObjectBank:
    """Keep crops of objects, to be drawn by class: the store of the same-class view.

    Bounded three times: crops of a class, pixels of a crop, bytes of them all. A full class gives
    up a random crop for a new one, so that old and recent images are both present; where the bytes
    run out, a random crop of the class that takes most of them goes. An image that comes again
    (in a later epoch, perhaps flipped) replaces its own earlier crops, so that an object is never
    drawn as its own partner.

    Args:
        max_per_class (int): Most crops of a class, at least 2: with a single one, an object alone
            of its class in its image would only ever meet itself.
        max_per_image (int): Most crops of a class that one image adds; they are chosen at random.
            Keeps an image with many objects from filling the bank with its own.
        min_size (int): Smallest side in pixels of an object that is kept.
        max_covered (float): Largest share, in [0, 1], of an object that smaller boxes may cover.
        max_side (int): Crops with a longer side are kept reduced to it, in pixels.
        max_bytes (int): Most bytes of pixels in all, for each process that holds a bank.

    Raises:
        ValueError: If a bound is out of range.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> bank = ObjectBank(min_size=4)
        >>> pixels = np.array([[0, 0, 8, 8], [8, 0, 16, 8]])
        >>> img = np.zeros((16, 16, 3), np.uint8)
        >>> bank.add(img, pixels, labels=[5, 5], covered=[0.0, 0.0], image=0, rng=rng)
        >>> bank.draw(5, like=img, image=0, row=1, share=0.9).shape
        (8, 8, 3)
    """

    def __init__(
        self,
        max_per_class: int = 32,
        max_per_image: int = 4,
        min_size: int = 16,
        max_covered: float = 0.25,
        max_side: int = 256,
        max_bytes: int = 64 * 2**20,
    ) -> None:
        for name, value, least in (
            ('max_per_class', max_per_class, 2),
            ('max_per_image', max_per_image, 1),
            ('min_size', min_size, 1),
            ('max_side', max_side, 1),
            ('max_bytes', max_bytes, 1),
        ):
            if not value >= least:
                raise ValueError(f'{name}={value!r} given for the bank, at least {least} expected.')
        if not 0 <= max_covered <= 1:
            raise ValueError(
                f'max_covered={max_covered!r} given for the bank, a share between 0 and 1 expected.'
            )
        self.max_per_class = max_per_class
        self.max_per_image = max_per_image
        self.min_size = min_size
        self.max_covered = max_covered
        self.max_side = max_side
        self.max_bytes = max_bytes
        self._crops: Dict[int, List[_Crop]] = {}
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """int: Bytes of all crops."""
        return self._nbytes

    def __len__(self) -> int:
        return sum(len(crops) for crops in self._crops.values())

    def count(self, label: int) -> int:
        """Count the crops of a class.

        Args:
            label (int): Class index.

        Returns:
            int: Number of crops.
        """
        return len(self._crops.get(int(label), ()))

    def add(
        self,
        img: np.ndarray,
        pixels: np.ndarray,
        labels: np.ndarray,
        covered: np.ndarray,
        image: Hashable,
        rng: np.random.Generator,
        candidates: Optional[np.ndarray] = None,
    ) -> None:
        """Take in objects of an image; its crops from an earlier visit go.

        Args:
            img (ndarray): (H, W) or (H, W, C); copied from.
            pixels (ndarray): (M, 4) int boxes within the image, (x1, y1, x2, y2).
            labels (ndarray): (M,) class indices.
            covered (ndarray): (M,) share of each box that others cover.
            image (Hashable): What identifies the image.
            rng (Generator): Chooses among the objects and what they replace.
            candidates (ndarray, optional): (M,) bool, objects to consider. Defaults to all.
        """
        pixels, labels = np.asarray(pixels).reshape(-1, 4), np.asarray(labels)
        self._forget(image)
        sides = pixels[:, 2:] - pixels[:, :2]
        fit = (sides >= self.min_size).all(axis=1) & (np.asarray(covered) <= self.max_covered)
        if candidates is not None:
            fit &= candidates
        for label in np.unique(labels[fit]):
            rows = rng.permutation(np.flatnonzero(fit & (labels == label)))
            for row in rows[: self.max_per_image]:
                x1, y1, x2, y2 = pixels[row]
                crop = self._reduce(img[y1:y2, x1:x2])
                self._store(int(label), _Crop(image, int(row), crop), rng)

    def draw(
        self, label: int, like: np.ndarray, image: Hashable, row: int, share: float
    ) -> Optional[np.ndarray]:
        """Draw a crop of a class for an object, never that object's own.

        Args:
            label (int): Class index.
            like (ndarray): Image to draw for: only crops of its dtype and channels are used.
            image (Hashable): What identifies the object's image.
            row (int): Row of the object in that image.
            share (float): Number in [0, 1) that chooses: uniform numbers choose uniformly.

        Returns:
            ndarray: (h, w) or (h, w, C), not to be changed; None where there is no such crop.
        """
        others = [
            crop.pixels
            for crop in self._crops.get(int(label), ())
            if (crop.row != row or crop.image != image)
            and crop.pixels.dtype == like.dtype
            and crop.pixels.shape[2:] == like.shape[2:]
        ]
        return others[int(share * len(others))] if others else None

    def _reduce(self, crop: np.ndarray) -> np.ndarray:
        height, width = crop.shape[:2]
        factor = self.max_side / max(height, width)
        if factor >= 1:
            return crop.copy()
        width, height = (max(1, round(side * factor)) for side in (width, height))
        return resize_patch(crop, width, height)

    def _store(self, label: int, crop: _Crop, rng: np.random.Generator) -> None:
        crops = self._crops.setdefault(label, [])
        if len(crops) >= self.max_per_class:
            self._drop(label, int(rng.integers(len(crops))))
        crops.append(crop)
        self._nbytes += crop.pixels.nbytes
        while self._nbytes > self.max_bytes:
            sizes = {
                name: sum(crop.pixels.nbytes for crop in members)
                for name, members in self._crops.items()
            }
            largest = max(sizes, key=sizes.get)
            self._drop(largest, int(rng.integers(len(self._crops[largest]))))

    def _drop(self, label: int, position: int) -> None:
        self._nbytes -= self._crops[label].pop(position).pixels.nbytes

    def _forget(self, image: Hashable) -> None:
        for label, crops in self._crops.items():
            for position in reversed(range(len(crops))):
                if crops[position].image == image:
                    self._drop(label, position)

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(max_per_class={self.max_per_class}, '
            f'max_per_image={self.max_per_image}, min_size={self.min_size}, '
            f'max_covered={self.max_covered}, max_side={self.max_side}, '
            f'max_bytes={self.max_bytes})'
        )
