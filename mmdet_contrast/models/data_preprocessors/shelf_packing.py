"""Packing of rectangles on shelves."""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np


class Placement(NamedTuple):
    """Where a rectangle lies."""

    canvas: int
    x: int
    y: int


class ShelfPacker:
    """Put rectangles into the first place that holds them, in rows ("shelves") on a few canvases.

    A shelf is as high as its first rectangle, so rectangles that come in the order of falling
    height waste least (first fit by decreasing height: at most 1.7 times the best height, see
    Coffman et al., SIAM J. Comput. 9, 1980).

    Args:
        width (int): Width of a canvas.
        height (int): Height of a canvas.
        max_canvases (int): Largest number of canvases.
        gap (int): Least distance between two rectangles.
        align (int): Positions are multiples of it.

    Examples:
        >>> packer = ShelfPacker(width=64, height=32, max_canvases=1, gap=4, align=8)
        >>> packer.add(20, 20), packer.add(20, 10), packer.add(40, 20)
        (Placement(canvas=0, x=0, y=0), Placement(canvas=0, x=24, y=0), None)
    """

    def __init__(
        self, width: int, height: int, max_canvases: int, gap: int = 0, align: int = 1
    ) -> None:
        self.width = width
        self.height = height
        self.max_canvases = max_canvases
        self.gap = gap
        self.align = align
        self._shelves: List[List[int]] = []  # canvas, y, height, next x
        self._bottoms: List[int] = []  # next y of each canvas

    def add(self, width: int, height: int) -> Optional[Placement]:
        """Place a rectangle.

        Args:
            width (int): Its width.
            height (int): Its height.

        Returns:
            Placement, optional: Where it lies; None, and nothing changed, where no canvas has room.
        """
        for shelf in self._shelves:
            canvas, y, room, x = shelf
            if height <= room and x + width <= self.width:
                shelf[3] = x + self._step(width)
                return Placement(canvas, x, y)
        if width > self.width or height > self.height:
            return None
        for canvas in range(self.max_canvases):
            if canvas == len(self._bottoms):
                self._bottoms.append(0)
            y = self._bottoms[canvas]
            if y + height <= self.height:
                self._shelves.append([canvas, y, height, self._step(width)])
                self._bottoms[canvas] = y + self._step(height)
                return Placement(canvas, 0, y)
        return None

    def _step(self, size: int) -> int:
        """Return the distance to the next position after a rectangle of this size."""
        return -(-(size + self.gap) // self.align) * self.align


def pack_by_priority(
    sizes: Sequence[Tuple[int, int]], width: int, height: int, max_canvases: int, **options
) -> List[Optional[Placement]]:
    """Pack as many of the first rectangles as fit together, and later ones where room is left.

    Args:
        sizes (Sequence[tuple[int, int]]): Width and height of each rectangle, the most wanted one
            first.
        width (int): Width of a canvas.
        height (int): Height of a canvas.
        max_canvases (int): Largest number of canvases.
        **options: ``gap`` and ``align`` of :class:`ShelfPacker`.

    Returns:
        list[Placement | None]: Where each lies; None for those that are left out.
    """

    def pack(number: int) -> Optional[Tuple[ShelfPacker, List[Optional[Placement]]]]:
        packer = ShelfPacker(width, height, max_canvases, **options)
        places: List[Optional[Placement]] = [None] * len(sizes)
        for i in sorted(range(number), key=lambda i: (-sizes[i][1], -sizes[i][0], i)):
            places[i] = packer.add(*sizes[i])
            if places[i] is None:
                return None
        return packer, places

    # beyond this many the area alone forbids it
    areas = np.cumsum([w * h for w, h in sizes])
    most = int(np.searchsorted(areas, width * height * max_canvases, side='right'))
    least, best = 0, pack(0)
    while least < most:
        middle = most if least == 0 else (least + most + 1) // 2
        packed = pack(middle)
        if packed is None:
            most = middle - 1
            if least == 0:
                # all did not fit: from here on by halves
                first = pack(1) if most else None
                if first is None:
                    break
                least, best = 1, first
        else:
            least, best = middle, packed
    packer, places = best
    for i in range(least, len(sizes)):
        places[i] = packer.add(*sizes[i])
    return places


def balanced_order(labels: Sequence[int], keys: Sequence[float]) -> List[int]:
    """Order boxes so that every class comes in turn, the rarest first.

    Args:
        labels (Sequence[int]): (M,) class of each box.
        keys (Sequence[float]): (M,) what boxes of one class are ordered by, lowest first.

    Returns:
        list[int]: (M,) indices: one box of each class, then the second one of each …

    Examples:
        >>> balanced_order([0, 0, 0, 1, 1, 2], keys=[3, 1, 2, 1, 2, 1])
        [5, 3, 1, 4, 2, 0]
    """
    labels, keys = np.asarray(labels), np.asarray(keys)
    if len(labels) == 0:
        return []
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.lexsort((keys, classes))
    starts = np.cumsum(counts) - counts
    turn = np.empty(len(labels), dtype=int)
    turn[order] = np.arange(len(labels)) - starts[classes[order]]
    return np.lexsort((keys, classes, counts[classes], turn)).tolist()
