"""Make the generated data set of circuit boards with small defects."""

import argparse
import json
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np

CLASSES = ('missing_hole', 'mouse_bite', 'open_circuit', 'short', 'spur', 'spurious_copper')
# name: classes, pictures, seed
SPLITS: Dict[str, Tuple[Sequence[int], int, int]] = dict(
    old=((0, 1, 2), 240, 1),
    new=((3, 4, 5), 240, 2),
    val=(range(6), 300, 3),
    test=(range(6), 300, 4),
)
# pictures are drawn at the first size and enlarged to the second
DRAWN, SIZE = 144, 256
_HOLE = (15.0, 20.0, 15.0)

Box = Tuple[int, int, int, int]
Rng = np.random.Generator
Array = np.ndarray


class Row(NamedTuple):
    """Traces that lie in one line: its y, their thickness, and where each begins and ends."""

    y: int
    thickness: int
    traces: List[Tuple[int, int]]


class Board:
    """A board without defects, holes not drilled yet.

    Args:
        rng (Generator): What is drawn at random.
    """

    def __init__(self, rng: Rng) -> None:
        between = (20, 60), (70, 120), (10, 50)
        self.base = np.array([rng.integers(*each) for each in between], float)
        lighter = (10, 30), (40, 80), (10, 40)
        self.copper = self.base + np.array([rng.integers(*each) for each in lighter])
        self.picture = np.zeros((DRAWN, DRAWN, 3), np.uint8)
        self.picture[:] = self.base
        self.rows: List[Row] = []
        y = int(rng.integers(10, 22))
        while y < DRAWN - 12:
            row = Row(y, int(rng.integers(4, 7)), [])
            x = int(rng.integers(6, 30))
            while x < DRAWN - 34:
                end = min(DRAWN - 8, x + int(rng.integers(44, 110)))
                row.traces.append((x, end))
                cv2.line(self.picture, (x, y), (end, y), self.copper.tolist(), row.thickness)
                x = end + int(rng.integers(18, 50))
            self.rows.append(row)
            y += int(rng.integers(17, 27))
        ends = [(x, row.y) for row in self.rows for trace in row.traces for x in trace]
        self.pads = [(x, y, int(rng.integers(6, 8))) for x, y in ends if rng.random() < 0.7]
        self.undrilled: List[int] = []

    def propose(self, rng: Rng, label: int) -> Optional[Tuple[Box, Callable[[], Any]]]:
        """Return the box of a defect and a function that draws it, or None where it has no room."""
        index = int(rng.integers(len(self.rows)))
        y, thickness, traces = self.rows[index]
        if not traces:
            return None
        start, end = traces[int(rng.integers(len(traces)))]
        if end - start < 40:
            return None
        x, r = int(rng.integers(start + 14, end - 14)), int(rng.integers(2, 5))
        side = 1 if rng.random() < 0.5 else -1
        edge = y + side * (thickness // 2)
        base, copper, picture = self.base.tolist(), self.copper.tolist(), self.picture
        below = self.rows[index + 1] if index + 1 < len(self.rows) else None
        name = CLASSES[label]
        if name == 'missing_hole':
            pad = int(rng.integers(len(self.pads))) if self.pads else -1
            if pad < 0 or pad in self.undrilled:
                return None
            x, y, r = self.pads[pad]
            box = (x - r - 1, y - r - 1, x + r + 1, y + r + 1)
            return box, lambda: self.undrilled.append(pad)
        if name == 'mouse_bite':
            box = (x - r - 1, edge - r - 1, x + r + 1, edge + r + 1)
            radius = r - 1 if r > 2 else r
            return box, lambda: cv2.circle(picture, (x, edge), radius, base, -1)
        if name == 'open_circuit':
            half = int(rng.integers(3, 7)) // 2
            box = (x - half - 2, y - thickness // 2 - 2, x + half + 3, y + thickness // 2 + 3)
            corners = (x - half, y - thickness), (x + half, y + thickness)
            return box, lambda: cv2.rectangle(picture, *corners, base, -1)
        if name == 'short':
            if below is None or not any(a + 10 < x < b - 10 for a, b in below.traces):
                return None
            width = int(rng.integers(3, 6))
            top, bottom = y + thickness // 2 - 1, below.y - below.thickness // 2 + 2
            box = (x - width // 2 - 3, top, x + width // 2 + 4, bottom)
            return box, lambda: cv2.line(
                picture, (x, y), (x + int(rng.integers(-2, 3)), below.y), copper, width
            )
        if name == 'spur':
            tip = edge + side * int(rng.integers(4, 7))
            box = (x - r - 1, min(edge, tip) - 1, x + r + 1, max(edge, tip) + 1)
            return box, lambda: cv2.fillPoly(
                picture,
                [np.array([[x - r, edge], [x + r, edge], [x + int(rng.integers(-1, 2)), tip]])],
                copper,
            )
        centre = x, (y + (DRAWN - 8 if below is None else below.y)) // 2
        axes = int(rng.integers(3, 7)), int(rng.integers(2, 5))
        (x, y), (a, b) = centre, axes
        return (x - a - 1, y - b - 1, x + a + 1, y + b + 1), lambda: cv2.ellipse(
            picture, centre, axes, float(rng.integers(0, 30)), 0, 360, copper, -1
        )


def draw_picture(rng: Rng, label: int) -> Tuple[Array, List[Box]]:
    """Draw a board with two to five defects of a class.

    Args:
        rng (Generator): What is drawn at random.
        label (int): Index of the class.

    Returns:
        tuple[ndarray, list[tuple]]: (H, W, 3) picture in uint8, and the boxes ``(x1, y1, x2, y2)``
        in pixels.
    """
    board = Board(rng)
    wanted, boxes = int(rng.integers(2, 6)), []
    for _ in range(200):
        if len(boxes) == wanted:
            break
        proposal = board.propose(rng, label)
        if proposal and _has_room(proposal[0], boxes):
            boxes.append(proposal[0])
            proposal[1]()
    for index, (x, y, radius) in enumerate(board.pads):
        cv2.circle(board.picture, (x, y), radius, board.copper.tolist(), -1)
        if index not in board.undrilled:
            cv2.circle(board.picture, (x, y), radius // 2, _HOLE, -1)
    light, across = board.picture.astype(float), np.linspace(-1, 1, DRAWN)
    horizontal, vertical = rng.normal(0, 12, 2)
    light += horizontal * across[None, :, None] + vertical * across[:, None, None]
    light += rng.normal(0, 6, light.shape)
    light = cv2.GaussianBlur(light, (0, 0), float(rng.uniform(0.5, 1.1)))
    picture = np.clip(light, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        picture = np.ascontiguousarray(picture.transpose(1, 0, 2))
        boxes = [(y1, x1, y2, x2) for x1, y1, x2, y2 in boxes]
    picture = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    scale = SIZE / DRAWN
    return picture, [tuple(round(side * scale) for side in box) for box in boxes]


def make_boards(out_dir: Path) -> None:
    """Write the pictures and, for each split, a COCO file.

    Args:
        out_dir (Path): Folder of the data set.
    """
    for folder in ('images', 'annotations'):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    for split, (labels, count, seed) in SPLITS.items():
        rng = np.random.default_rng(seed)
        images: List[dict] = []
        annotations: List[dict] = []
        for index in range(count):
            label = labels[index % len(labels)]
            picture, boxes = draw_picture(rng, label)
            name = f'{split}_{index:04d}.jpg'
            path = str(out_dir / 'images' / name)
            cv2.imwrite(path, picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
            image = dict(id=index + 1, file_name=name, width=SIZE, height=SIZE)
            images.append(image)
            for x1, y1, x2, y2 in boxes:
                width, height = x2 - x1, y2 - y1
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image['id'],
                        category_id=label + 1,
                        bbox=[x1, y1, width, height],
                        area=width * height,
                        iscrowd=0,
                    )
                )
        categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
        content = dict(images=images, annotations=annotations, categories=categories)
        path = out_dir / 'annotations' / f'{split}.json'
        path.write_text(json.dumps(content), encoding='utf-8')
        print(f'{path}: {len(images)} images, {len(annotations)} annotations')


def _has_room(box: Box, others: Sequence[Box]) -> bool:
    """Whether a box lies in the picture, 6 pixels or more from the others."""
    inside = min(box) >= 1 and max(box) < DRAWN - 1
    return inside and all(
        box[2] <= other[0] - 6
        or other[2] <= box[0] - 6
        or box[3] <= other[1] - 6
        or other[3] <= box[1] - 6
        for other in others
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', type=Path, help='folder of the data set')
    make_boards(parser.parse_args().out_dir)
