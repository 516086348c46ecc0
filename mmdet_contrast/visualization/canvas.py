"""Drawing on pictures: the few primitives that the pictures of this package share."""

# Why not MMEngine's Visualizer: its lines have no edge that keeps them visible on any ground, its
# labels cover each other, for it does not place them, and a figure for each frame of a video is
# slow.

import colorsys
import os.path as osp
from functools import lru_cache
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import get_box_tensor

Colour = Tuple[int, int, int]

GREY: Colour = (150, 150, 150)
# Smaller pictures are enlarged to this length of the longer side, so that names can be read.
MIN_SIDE = 640
_TITLE_SIZE = 20
_HEADER = 32
_GAP = 8


class DrawnBox(NamedTuple):
    """A box as it is drawn.

    Attributes:
        box (Sequence[float]): (x1, y1, x2, y2) in pixels of the picture.
        colour (tuple[int, int, int]): RGB.
        text (str): Name, written beside it.
        dashed (bool): Dashed instead of solid.
        wide (bool): With a line that shows on either side of one of the usual width.
        below (bool): Name below the box rather than above it.
    """

    box: Sequence[float]
    colour: Colour
    text: str = ''
    dashed: bool = False
    wide: bool = False
    below: bool = False


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


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Bring a picture of any kind into the form that is drawn on.

    Args:
        image (ndarray): (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), RGB with alpha last; uint8,
            uint16 (65535 is white) or float (255 is white).

    Returns:
        ndarray: (H, W, 3) uint8.
    """
    image = image >> 8 if image.dtype == np.uint16 else np.nan_to_num(image).clip(0, 255)
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, axis=2)
    return image.astype(np.uint8)


def palette(num: int, given: Sequence[Sequence[int]] = ()) -> List[Colour]:
    """Make distinct colours, the same for a class however many others there are.

    Args:
        num (int): Number of colours.
        given (Sequence): RGB colours of the first classes. Defaults to none.

    Returns:
        list[tuple[int, int, int]]: RGB colours, those given first.
    """
    colours: List[Colour] = [(int(r), int(g), int(b)) for r, g, b in given]
    index = 0
    while len(colours) < num:
        # steps of the golden ratio keep any number of hues apart; every twelve are paler or darker
        saturation = 0.85 - 0.5 * (index // 12 * 0.618034 % 1)
        value = 1 - 0.35 * (index // 12 * 0.754878 % 1)
        rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, saturation, value)
        r, g, b = (round(255 * part) for part in rgb)
        if (r, g, b) not in colours:
            colours.append((r, g, b))
        index += 1
    return colours[:num]


def enlarge(image: np.ndarray) -> Tuple[np.ndarray, int]:
    """Enlarge a small image by a whole factor.

    Args:
        image (ndarray): (H, W, 3) uint8.

    Returns:
        tuple[ndarray, int]: A copy of the image, enlarged without smoothing (so that the picture
        shows the pixels the network gets), and the factor.
    """
    factor = max(1, -(-MIN_SIDE // max(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1), factor


def draw_line_box(
    image: np.ndarray, box: Sequence[float], colour: Colour, dashed: bool, width: int, edge: int
) -> None:
    """Draw the outline of a box in place.

    Args:
        image (ndarray): (H, W, 3) uint8, changed in place.
        box (Sequence[float]): (x1, y1, x2, y2) in pixels of ``image``.
        colour (tuple[int, int, int]): RGB.
        dashed (bool): Dashed instead of solid.
        width (int): Width of the line in pixels.
        edge (int): Width of the dark edge on either side, which keeps it visible on any ground.
    """
    limits = np.array([image.shape[1], image.shape[0]] * 2) - 1
    x1, y1, x2, y2 = np.clip(np.rint(box), 0, limits)
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])
    lines: List[np.ndarray] = []
    for start, end in zip(corners, corners[1:]):
        # An odd number of pieces, every other one drawn: a dash at each corner.
        pieces = max(int(np.abs(end - start).max()) // (4 * width), 2) | 1 if dashed else 1
        lines.extend(np.linspace(start, end, pieces + 1).round().astype(np.int32).reshape(-1, 2, 2))
    cv2.polylines(image, lines, False, (0, 0, 0), width + 2 * edge)
    cv2.polylines(image, lines, False, colour, width)


@lru_cache(maxsize=32)
def _font(size: int) -> Any:
    # Imported here because training processes import this module and do not draw.
    import matplotlib
    from PIL import ImageFont

    # OpenCV's own letters are strokes of ASCII; matplotlib brings a font for most alphabets.
    path = osp.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(path, size)


def text_size(text: str, size: int) -> Tuple[int, int]:
    """Measure the width of a text and the height of a line in pixels.

    Args:
        text (str): One line.
        size (int): Font size in pixels.

    Returns:
        tuple[int, int]: Width of ``text``; height of any line, the same for all texts.
    """
    font = _font(size)
    return int(np.ceil(font.getlength(text))), sum(font.getmetrics())


def draw_text(image: np.ndarray, x: int, y: int, text: str, colour: Colour, size: int) -> None:
    """Write one line in place; what lies outside the picture is cut off.

    Args:
        image (ndarray): (H, W, 3) uint8, changed in place.
        x (int): Left end of the text, not negative.
        y (int): Upper end of the line, not negative.
        text (str): The text.
        colour (tuple[int, int, int]): RGB.
        size (int): Font size in pixels.
    """
    from PIL import Image, ImageDraw

    width, height = text_size(text, size)
    part = image[y : y + height, x : x + width]
    if part.size:
        # a part, for a copy of the whole picture for every name is slow
        written = Image.fromarray(part)
        ImageDraw.Draw(written).text((0, 0), text, fill=colour, font=_font(size))
        part[:] = written


def shorten(text: str, width: int, size: int) -> str:
    """Cut letters out of the middle of a text until it fits, but leave its ends.

    Args:
        text (str): One line.
        width (int): Room in pixels.
        size (int): Font size in pixels.

    Returns:
        str: The text, or its first letters, an ellipsis and its last six letters.
    """
    first, short = len(text), text
    while text_size(short, size)[0] > width and first > 8:
        first = first * 9 // 10
        short = f'{text[: first - 7]}…{text[-6:]}'
    return short


def draw_boxes(image: np.ndarray, boxes: Sequence[DrawnBox]) -> None:
    """Draw boxes with their names in place.

    Lines and letters grow with the picture, and are smaller where boxes are small or many. Names
    are kept within the picture and clear of each other where that can be; one that could only lie
    on others is left out, and so are those beyond five when names cover a quarter of the picture:
    of a thousand nobody reads one, nor sees the picture.

    Args:
        image (ndarray): (H, W, 3) uint8, changed in place.
        boxes (Sequence[DrawnBox]): The most important one first.
    """
    longer, shrink = max(image.shape[:2]), 1.0
    if boxes:
        sides = [np.sqrt(max(x2 - x1, 1) * max(y2 - y1, 1)) for (x1, y1, x2, y2), *_ in boxes]
        shrink = min(np.median(sides) / (0.06 * longer), (30 / len(boxes)) ** 0.5, 1.0)
    shrink = max(shrink, 0.55)
    line, font = max(2, round(shrink * longer / 340)), max(12, round(shrink * longer / 45))
    edge = max(1, line // 3)
    for entry in reversed(boxes):
        width = line + 4 * edge if entry.wide else line
        draw_line_box(image, entry.box, entry.colour, entry.dashed, width, edge)
    # names last, so that no line crosses one
    taken = np.zeros((0, 4), int)
    for entry in boxes:
        if entry.text:
            taken = np.vstack([taken, _draw_name(image, entry, font, taken)])


def _draw_name(image: np.ndarray, entry: DrawnBox, size: int, taken: np.ndarray) -> np.ndarray:
    """Write a box's name where it covers least of (K, 4) others; return its place, (0 or 1, 4)."""
    pad = max(2, size // 6)
    # Pillow measures no text with line breaks
    text = shorten(' '.join(entry.text.split()), image.shape[1] - 2 * pad, size)
    width, height = text_size(text, size)
    width += 2 * pad
    x1, y1, x2, y2 = np.rint(entry.box).astype(int)
    rows = [y1 - height, y2, y1, y2 - height]
    rows = [rows[i] for i in (1, 0, 3, 2)] if entry.below else rows
    wanted = np.array([(x, y) for y in rows for x in (x1, x2 - width)])
    corners = wanted.clip(0, np.maximum([image.shape[1] - width, image.shape[0] - height], 0))
    places = np.hstack([corners, corners + (width, height)])
    sides = np.minimum(places[:, None, 2:], taken[:, 2:]) - np.maximum(
        corners[:, None], taken[:, :2]
    )
    hidden = sides.clip(0).prod(axis=2).sum(axis=1)
    best = int(np.argmin(hidden + np.abs(wanted - corners)[:, 1] * width))
    covered = (taken[:, 2:] - taken[:, :2]).prod(axis=1).sum()
    crowded = len(taken) >= 5 and covered > image.shape[0] * image.shape[1] / 4
    if crowded or hidden[best] > width * height / 2:
        return taken[:0]
    x, y = corners[best]
    image[y : y + height, x : x + width] = entry.colour
    # Luma of ITU-R BT.601.
    bright = float(np.dot(entry.colour, (0.299, 0.587, 0.114))) > 128
    draw_text(image, x + pad, y, text, (0, 0, 0) if bright else (255, 255, 255), size)
    return places[best : best + 1]


def grid(
    pictures: Sequence[np.ndarray],
    titles: Optional[Sequence[str]] = None,
    columns: Optional[int] = None,
) -> np.ndarray:
    """Arrange pictures of any sizes in rows; a narrow one gets the room of its title.

    Args:
        pictures (Sequence[ndarray]): (H, W, 3) uint8 pictures, at least one.
        titles (Sequence[str], optional): A line above each picture. Defaults to none.
        columns (int, optional): Pictures per row. Defaults to all.

    Returns:
        ndarray: (H', W', 3) uint8 picture on white.
    """
    header = _HEADER if titles else 0
    titles, columns = titles or [''] * len(pictures), min(columns or 99, len(pictures))
    places = [divmod(number, columns) for number in range(len(pictures))]
    heights, widths = [0] * (places[-1][0] + 1), [0] * columns
    for (row, column), picture, title in zip(places, pictures, titles):
        heights[row] = max(heights[row], header + picture.shape[0] + _GAP)
        width = max(picture.shape[1], 4 + text_size(title, _TITLE_SIZE)[0])
        widths[column] = max(widths[column], width + _GAP)
    sheet = np.full((sum(heights) - _GAP, sum(widths) - _GAP, 3), 255, np.uint8)
    for (row, column), picture, title in zip(places, pictures, titles):
        x, y = sum(widths[:column]), sum(heights[:row])
        draw_text(sheet, x + 4, y + 4, title, (0, 0, 0), _TITLE_SIZE)
        y += header
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def save_picture(picture: np.ndarray, path: str) -> None:
    """Write a picture to a file; its folder is made if absent.

    Args:
        picture (ndarray): (H, W, 3) uint8 RGB.
        path (str): The file; its ending says the format.
    """
    mmcv.imwrite(np.ascontiguousarray(picture[..., ::-1]), path)
