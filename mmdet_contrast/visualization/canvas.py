"""Drawing on pictures: the few primitives that the pictures of this package share."""

# Why not MMEngine's Visualizer: it draws at the resolution of the image, with a font in points,
# which nobody can read on an image of 128 pixels; lines have no edge that keeps them visible on any
# ground; and labels cover each other, for it does not place them.

import colorsys
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
# Saturation and value of the colours of twelve classes, then of the next twelve …
_TONES = ((0.78, 1.0), (0.5, 1.0), (0.9, 0.72), (0.62, 0.86), (0.34, 0.95))
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
    colours: List[Colour] = []
    for index in range(num + len(given)):
        # steps of the golden ratio keep any number of hues apart
        hue = index * 0.618034 % 1
        saturation, value = _TONES[index // 12 % len(_TONES)]
        # the second sixty are a little paler, and so on: no two of a thousand classes are equal
        saturation *= 1 - 0.017 * (index // 60 % 29)
        r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
        colours.append((round(255 * r), round(255 * g), round(255 * b)))
    first: List[Colour] = [(int(r), int(g), int(b)) for r, g, b in given]
    return [*first, *(colour for colour in colours if colour not in first)][:num]


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


def _one_line(text: str) -> str:
    # Pillow measures no text with line breaks
    return text.replace('\r', ' ').replace('\n', ' ')


def text_size(text: str, size: int = _FONT_SIZE) -> Tuple[int, int]:
    """Measure the width of a text and the height of a line in pixels.

    Args:
        text (str): One line.
        size (int): Font size in pixels. Defaults to 14.

    Returns:
        tuple[int, int]: Width of ``text``; height of any line, the same for all texts.
    """
    font = _font(size)
    return int(np.ceil(font.getlength(_one_line(text)))), sum(font.getmetrics())


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
    ImageDraw.Draw(letters).text((0, 0), _one_line(text), fill=255, font=_font(size))
    part = image[y : y + letters.height, x : x + letters.width]
    cover = np.asarray(letters, np.float32)[: part.shape[0], : part.shape[1], None] / 255
    part[:] = np.rint(part * (1 - cover) + np.array(colour, np.float32) * cover)


def shorten(text: str, width: int, size: int = _FONT_SIZE) -> str:
    """Cut letters out of the middle of a text until it fits, but leave its ends.

    Args:
        text (str): One line.
        width (int): Room in pixels.
        size (int): Font size in pixels. Defaults to 14.

    Returns:
        str: The text, or its first letters, an ellipsis and its last six letters.
    """
    if text_size(text, size)[0] <= width:
        return text
    first = len(text) - 7
    while first > 1 and text_size(f'{text[:first]}…{text[-6:]}', size)[0] > width:
        first = first * 9 // 10
    return f'{text[:first]}…{text[-6:]}' if first > 0 else text


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

    A name wider than the picture is shortened. One that could only lie on other names, by more than
    half, is left out, and so are those beyond five when names cover a quarter of the picture: of
    a thousand nobody reads one, nor sees the picture.

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
    pad = max(2, size // 6)
    text = shorten(text, image.shape[1] - 2 * pad, size)
    width, height = text_size(text, size)
    width += 2 * pad
    x1, y1, x2, y2 = (int(round(float(value))) for value in box)
    rows = {'above': y1 - height, 'inside': y1, 'inside below': y2 - height, 'below': y2}
    names = ('below', 'above') if below else ('above', 'below')
    names += ('inside below', 'inside') if below else ('inside', 'inside below')
    places = [(x, rows[name]) for name in names for x in (x1, x2 - width)]
    others = np.asarray(taken or (), int).reshape(-1, 4)
    best, least, hidden = (0, 0, 0, 0), float('inf'), 0
    for x, y in places:
        outside = max(-y, y + height - image.shape[0], 0) * width
        x = int(np.clip(x, 0, max(image.shape[1] - width, 0)))
        y = int(np.clip(y, 0, max(image.shape[0] - height, 0)))
        place = (x, y, x + width, y + height)
        common = _common_area(place, others)
        if outside + common < least:
            best, least, hidden = place, outside + common, common
        if least == 0:
            break
    covered = (others[:, 2:] - others[:, :2]).prod(axis=1).sum()
    crowded = len(others) >= 5 and covered > image.shape[0] * image.shape[1] / 4
    if crowded or hidden > width * height / 2:
        return
    x, y = best[:2]
    image[y : y + height, x : x + width] = colour
    # Luma of ITU-R BT.601.
    bright = float(np.dot(colour, (0.299, 0.587, 0.114))) > 128
    draw_text(image, x + pad, y, text, (0, 0, 0) if bright else (255, 255, 255), size)
    if taken is not None:
        taken.append(best)


def _common_area(place: Rectangle, others: np.ndarray) -> int:
    """Add up the areas that a rectangle shares with each of (K, 4) others."""
    sides = np.minimum(place[2:], others[:, 2:]) - np.maximum(place[:2], others[:, :2])
    return int(np.maximum(sides, 0).prod(axis=1).sum())


def line_and_font(shape: Sequence[int], boxes: Sequence[np.ndarray]) -> Tuple[int, int]:
    """Choose sizes that grow with a picture, and are smaller where boxes are small or many.

    Args:
        shape (Sequence[int]): Height and width of the picture.
        boxes (Sequence[ndarray]): (x1, y1, x2, y2) in its pixels.

    Returns:
        tuple[int, int]: Width of lines and size of letters in pixels.
    """
    longer, shrink = max(shape[:2]), 1.0
    if len(boxes):
        sides = [np.sqrt(np.prod(np.maximum(box[2:] - box[:2], 1))) for box in boxes]
        shrink = min(np.median(sides) / (0.06 * longer), (30 / len(boxes)) ** 0.5, 1.0)
    shrink = max(shrink, 0.55)
    return max(2, round(shrink * longer / 340)), max(11, round(shrink * longer / 52))


def draw_named_boxes(
    image: np.ndarray, boxes: np.ndarray, names: Sequence[str], colours: Sequence[Colour]
) -> None:
    """Draw boxes with their names in place.

    Args:
        image (ndarray): (H, W, 3) uint8, changed in place.
        boxes (ndarray): (M, 4) in pixels of ``image``, the most important one first.
        names (Sequence[str]): (M,) what is written beside each.
        colours (Sequence[tuple]): (M,) RGB.
    """
    line, font = line_and_font(image.shape, list(boxes))
    for box, colour in reversed(list(zip(boxes, colours))):
        draw_box(image, box, colour, width=line, edge=max(1, line // 3))
    # names last, so that no line crosses one
    taken: List[Rectangle] = []
    for box, name, colour in zip(boxes, names, colours):
        draw_label(image, box, name, colour, font, taken)


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
