"""Drawing on pictures: the few primitives that the pictures of this package share."""

# Why not MMEngine's Visualizer: it draws at the resolution of the image, with a font in points,
# which nobody can read on an image of 128 pixels; lines have no edge that keeps them visible on any
# ground; and labels cover each other, for it does not place them.

import os.path as osp
from functools import lru_cache
from typing import Any, List, Optional, Sequence, Tuple

import cv2
import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import get_box_tensor

Colour = Tuple[int, int, int]
Rectangle = Tuple[int, int, int, int]

GREY: Colour = (150, 150, 150)
_FONT_SIZE = 14
_TITLE_SIZE = 16
_HEADER = 28
_GAP = 8


def to_array(values: Any) -> np.ndarray:
    """Copy boxes, labels or scores into an array.

    Args:
        values (Tensor | BaseBoxes | ndarray | Sequence): The values, on any device.
            ``DetDataSample.cpu()`` leaves box objects where they are, so they are copied here.

    Returns:
        ndarray: The values.
    """
    values = get_box_tensor(values)
    if torch.is_tensor(values):
        values = values.detach().cpu()
        # NumPy has no bfloat16
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def palette(num: int) -> List[Colour]:
    """Make distinct bright colours, the same for the same number of classes.

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


def draw_box(
    image: np.ndarray,
    box: Sequence[float],
    colour: Colour,
    dashed: bool = False,
    width: int = 2,
    edge: int = 1,
) -> None:
    """Draw a box in place.

    Args:
        image (ndarray): (H, W, 3) uint8, changed in place.
        box (Sequence[float]): (x1, y1, x2, y2) in pixels of ``image``.
        colour (tuple[int, int, int]): RGB.
        dashed (bool): Dashed instead of solid. Defaults to False.
        width (int): Width of the line in pixels. Defaults to 2.
        edge (int): Width of the dark edge on either side of the line. Defaults to 1.
    """
    height, full_width = image.shape[:2]
    x1, y1, x2, y2 = (int(round(float(value))) for value in box)
    x1, x2 = np.clip([x1, x2], 0, full_width - 1).tolist()
    y1, y2 = np.clip([y1, y2], 0, height - 1).tolist()
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    lines = []
    for (ax, ay), (bx, by) in zip(corners, corners[1:]):
        length = max(abs(bx - ax), abs(by - ay))
        # An odd number of pieces, every other one drawn: a dash at each corner.
        pieces = max(length // (4 * width), 2) | 1 if dashed else 1
        for piece in range(0, pieces, 2):
            ends = [piece / pieces, (piece + 1) / pieces]
            lines.append([(round(ax + (bx - ax) * t), round(ay + (by - ay) * t)) for t in ends])
    # A dark edge keeps the line visible on any background.
    for ink, thick in (((0, 0, 0), width + 2 * edge), (colour, width)):
        for start, end in lines:
            cv2.line(image, start, end, ink, thick)


@lru_cache(maxsize=32)
def _font(size: int) -> Any:
    # Imported here because training processes import this module and do not draw.
    import matplotlib
    from PIL import ImageFont

    # OpenCV's own letters are strokes of ASCII; matplotlib brings a font for most alphabets.
    path = osp.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(path, size)


def text_size(text: str, size: int = _FONT_SIZE) -> Tuple[int, int]:
    """Measure the width of a text and the height of a line in pixels.

    Args:
        text (str): One line.
        size (int): Font size in pixels. Defaults to 14.

    Returns:
        tuple[int, int]: Width of ``text``; height of any line, the same for all texts.
    """
    font = _font(size)
    return int(np.ceil(font.getlength(text))), sum(font.getmetrics())


def draw_text(
    image: np.ndarray, x: int, y: int, text: str, colour: Colour, size: int = _FONT_SIZE
) -> None:
    """Write one line in place; what lies outside the picture is cut off.

    Args:
        image (ndarray): (H, W, 3) uint8, changed in place.
        x (int): Left end of the text, not negative.
        y (int): Upper end of the line, not negative.
        text (str): The text.
        colour (tuple[int, int, int]): RGB.
        size (int): Font size in pixels. Defaults to 14.
    """
    from PIL import Image, ImageDraw

    letters = Image.new('L', text_size(text, size))
    ImageDraw.Draw(letters).text((0, 0), text, fill=255, font=_font(size))
    part = image[y : y + letters.height, x : x + letters.width]
    cover = np.asarray(letters, np.float32)[: part.shape[0], : part.shape[1], None] / 255
    part[:] = np.rint(part * (1 - cover) + np.array(colour, np.float32) * cover)


def draw_label(
    image: np.ndarray,
    box: Sequence[float],
    text: str,
    colour: Colour,
    size: int = _FONT_SIZE,
    taken: Optional[List[Rectangle]] = None,
    below: bool = False,
) -> None:
    """Write a box's name beside it, kept within the picture and clear of other names if it can be.

    Args:
        image (ndarray): (H, W, 3) uint8, changed in place.
        box (Sequence[float]): (x1, y1, x2, y2) in pixels of ``image``.
        text (str): The name.
        colour (tuple[int, int, int]): RGB of the label's ground; the text is black or white,
            whichever stands out.
        size (int): Font size in pixels. Defaults to 14.
        taken (list[tuple], optional): Rectangles of the labels written so far, (x1, y1, x2, y2);
            this one is appended.
        below (bool): Below the box rather than above it. Defaults to False.
    """
    width, height = text_size(text, size)
    pad = max(2, size // 6)
    width += 2 * pad
    x1, y1, x2, y2 = (int(round(float(value))) for value in box)
    rows = {'above': y1 - height, 'inside': y1, 'inside below': y2 - height, 'below': y2}
    names = ('below', 'above') if below else ('above', 'below')
    names += ('inside below', 'inside') if below else ('inside', 'inside below')
    places = [(x, rows[name]) for name in names for x in (x1, x2 - width)]
    best, least = (0, 0, 0, 0), float('inf')
    for x, y in places:
        outside = max(-y, y + height - image.shape[0], 0) * width
        x = int(np.clip(x, 0, max(image.shape[1] - width, 0)))
        y = int(np.clip(y, 0, max(image.shape[0] - height, 0)))
        place = (x, y, x + width, y + height)
        cost = outside + sum(_common_area(place, other) for other in taken or ())
        if cost < least:
            best, least = place, cost
    x, y = best[:2]
    image[y : y + height, x : x + width] = colour
    # Luma of ITU-R BT.601.
    bright = float(np.dot(colour, (0.299, 0.587, 0.114))) > 128
    draw_text(image, x + pad, y, text, (0, 0, 0) if bright else (255, 255, 255), size)
    if taken is not None:
        taken.append(best)


def _common_area(first: Rectangle, second: Rectangle) -> int:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def stack_panels(panels: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Put panels side by side under their titles; a narrow panel gets the room of its title.

    Args:
        panels (Sequence[ndarray]): (H, W, 3) uint8 pictures.
        titles (Sequence[str]): One title per panel.

    Returns:
        ndarray: (H', W', 3) uint8 picture on white.
    """
    height = _HEADER + max(panel.shape[0] for panel in panels)
    widths = [
        max(panel.shape[1], 4 + text_size(title, _TITLE_SIZE)[0])
        for panel, title in zip(panels, titles)
    ]
    sheet = np.full((height, sum(widths) + _GAP * (len(panels) - 1), 3), 255, np.uint8)
    x = 0
    for panel, title, width in zip(panels, titles, widths):
        draw_text(sheet, x + 4, 4, title, (0, 0, 0), _TITLE_SIZE)
        sheet[_HEADER : _HEADER + panel.shape[0], x : x + panel.shape[1]] = panel
        x += width + _GAP
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


def save_picture(picture: np.ndarray, path: str) -> None:
    """Write a picture to a file; its folder is made if absent.

    Args:
        picture (ndarray): (H, W, 3) uint8 RGB.
        path (str): The file; its ending says the format.
    """
    mmcv.imwrite(np.ascontiguousarray(picture[..., ::-1]), path)
