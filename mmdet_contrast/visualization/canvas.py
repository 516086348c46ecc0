"""Drawing on small pictures: the few primitives that the pictures of this package share.

MMEngine's ``Visualizer`` draws at the image's own resolution with a font in points, which is
illegible on an image of 128 pixels. Here the image is enlarged first, and line and font have a size
in the pixels of the enlarged one.
"""

from typing import List, Sequence, Tuple

import cv2
import numpy as np

Colour = Tuple[int, int, int]

GREY: Colour = (150, 150, 150)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.5
_HEADER = 28
_GAP = 8


def palette(num: int) -> List[Colour]:
    """Distinct bright colours, the same for the same number of classes.

    Args:
        num (int): Number of colours.

    Returns:
        list[tuple[int, int, int]]: RGB colours.
    """
    hues = (np.arange(max(num, 1)) * 179 / max(num, 1)).astype(np.uint8)
    hsv = np.stack([hues, np.full_like(hues, 200), np.full_like(hues, 255)], -1)[None]
    return [tuple(int(c) for c in colour) for colour in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]]


def enlarge(image: np.ndarray, min_side: int) -> Tuple[np.ndarray, int]:
    """Enlarge an image by a whole factor until its longer side reaches ``min_side``.

    Args:
        image (ndarray): (H, W, 3) uint8.
        min_side (int): Wanted length of the longer side, in pixels.

    Returns:
        tuple[ndarray, int]: A copy of the image, enlarged without smoothing (so that the picture
        shows the pixels the network gets), and the factor.
    """
    factor = max(1, -(-min_side // max(image.shape[:2])))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), factor


def draw_box(image: np.ndarray, box: Sequence[float], colour: Colour, dashed: bool = False) -> None:
    """Draw a box in place.

    Args:
        image (ndarray): (H, W, 3) uint8, changed in place.
        box (Sequence[float]): (x1, y1, x2, y2) in pixels of ``image``.
        colour (tuple[int, int, int]): RGB.
        dashed (bool): Dashed instead of solid. Defaults to False.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (int(round(float(value))) for value in box)
    x1, x2 = np.clip([x1, x2], 0, width - 1).tolist()
    y1, y2 = np.clip([y1, y2], 0, height - 1).tolist()
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    for (ax, ay), (bx, by) in zip(corners, corners[1:]):
        length = max(abs(bx - ax), abs(by - ay))
        step = 8 if dashed else max(length, 1)
        for start in range(0, max(length, 1), 2 * step if dashed else step):
            ends = [start / max(length, 1), min(start + step, length) / max(length, 1)]
            points = [(round(ax + (bx - ax) * t), round(ay + (by - ay) * t)) for t in ends]
            # A dark edge keeps the line visible on any background.
            cv2.line(image, points[0], points[1], (0, 0, 0), 4)
            cv2.line(image, points[0], points[1], colour, 2)


def draw_label(image: np.ndarray, box: Sequence[float], text: str, colour: Colour) -> None:
    """Write a box's name above it (inside it at the upper edge), kept within the picture.

    Args:
        image (ndarray): (H, W, 3) uint8, changed in place.
        box (Sequence[float]): (x1, y1, x2, y2) in pixels of ``image``.
        text (str): The name.
        colour (tuple[int, int, int]): RGB of the label's ground; the text is black or white,
            whichever stands out.
    """
    (width, height), base = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)
    tall = height + base + 2
    x = int(np.clip(box[0], 0, max(image.shape[1] - width - 4, 0)))
    top = box[1] - tall if box[1] >= tall else box[1]
    y = int(np.clip(top, 0, max(image.shape[0] - tall, 0)))
    cv2.rectangle(image, (x, y), (x + width + 4, y + tall), colour, -1)
    origin = (x + 2, y + height + 1)
    # Luma of ITU-R BT.601.
    bright = float(np.dot(colour, (0.299, 0.587, 0.114))) > 128
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(image, text, origin, _FONT, _FONT_SCALE, ink, 1, cv2.LINE_AA)


def stack_panels(panels: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Put panels side by side under their titles.

    Args:
        panels (Sequence[ndarray]): (H, W, 3) uint8 pictures.
        titles (Sequence[str]): One title per panel.

    Returns:
        ndarray: (H', W', 3) uint8 picture on white.
    """
    height = _HEADER + max(panel.shape[0] for panel in panels)
    width = sum(panel.shape[1] for panel in panels) + _GAP * (len(panels) - 1)
    sheet = np.full((height, width, 3), 255, np.uint8)
    x = 0
    for panel, title in zip(panels, titles):
        cv2.putText(sheet, title, (x + 4, 20), _FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        sheet[_HEADER : _HEADER + panel.shape[0], x : x + panel.shape[1]] = panel
        x += panel.shape[1] + _GAP
    return sheet


def grid(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Arrange pictures of any sizes in rows.

    Args:
        pictures (Sequence[ndarray]): (H, W, 3) uint8 pictures, at least one.
        columns (int): Pictures per row.

    Returns:
        ndarray: (H', W', 3) uint8 picture on white.
    """
    height = max(picture.shape[0] for picture in pictures) + _GAP
    width = max(picture.shape[1] for picture in pictures) + _GAP
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, min(columns, len(pictures)) * width, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        y, x = number // columns * height, number % columns * width
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet
