"""Drawing for the generated data set: backgrounds, objects, and whole pictures."""

from typing import List, NamedTuple, Optional, Tuple

import cv2
import numpy as np
from shape_patterns import OUTLINES, TEXTURES, Array, Rng

# A drawn object keeps at least this share of its pixels visible and of its outline in the picture,
# so that every object a person can name is annotated and nothing else is.
MIN_VISIBLE = 0.5
MIN_INSIDE = 0.6
_PLACEMENT_TRIES = 12
# Sizes are shares of the picture's shorter side.
_SMALLEST, _LARGEST = 0.085, 0.85
_GOLDEN = 0.6180339887498949
# Shares of the pictures: without objects, filled by one object, with a crowd.
_EMPTY, _FILLED, _CROWDED = 0.05, 0.03, 0.05


class DrawnObject(NamedTuple):
    """An annotated object: class index, visible pixels as a (H, W) bool mask, and crowd flag."""

    label: int
    mask: Array
    crowd: bool


# --------------------------------------------------------------------------------- colours
def _colour(rng: Rng, lightness: float, vivid: float = 190) -> Array:
    hue, saturation = rng.uniform(0, 180), rng.uniform(15, vivid)
    pixel = np.array([[[hue, lightness * 255, saturation]]], dtype=np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HLS2BGR)[0, 0].astype(np.float32)


def _two_colours(rng: Rng) -> Tuple[Array, Array]:
    """Two colours of unlike lightness in random order: neither colour tells the class."""
    dark, light = _colour(rng, rng.uniform(0.12, 0.38)), _colour(rng, rng.uniform(0.6, 0.9))
    return (dark, light) if rng.random() < 0.5 else (light, dark)


def _smooth(rng: Rng, height: int, width: int, cells: int) -> Array:
    """Low-frequency noise in -1 … 1, (H, W)."""
    grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def _ramp(rng: Rng, height: int, width: int) -> Array:
    """A plane in -0.5 … 0.5 of random direction, (H, W)."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.cos(angle)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.sin(angle)
    return (y[:, None] + x[None]) / (abs(np.cos(angle)) + abs(np.sin(angle)))


def _background(rng: Rng, height: int, width: int) -> Array:
    base, other = (_colour(rng, rng.uniform(0.2, 0.8), vivid=90) for _ in range(2))
    kind = rng.integers(4)
    mix = 0.5 * _ramp(rng, height, width) + 0.25 * _smooth(rng, height, width, 4)
    if kind == 1:
        mix = mix + 0.3 * _smooth(rng, height, width, int(rng.integers(8, 20)))
    elif kind == 2:
        # Planks: long seams, each board of its own shade.
        angle, pitch = rng.uniform(0, np.pi), rng.uniform(0.12, 0.3) * max(height, width)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        along = (x * np.cos(angle) + y * np.sin(angle)) / pitch + 50
        shades = rng.uniform(-0.25, 0.25, 128).astype(np.float32)
        mix = mix + shades[along.astype(np.int64) % 128] - 0.3 * (along % 1 < 0.05)
    elif kind == 3:
        # Gravel: fine grain of two sizes.
        mix = mix + 0.3 * _smooth(rng, height, width, max(height, width) // 4)
        mix = mix + 0.2 * _smooth(rng, height, width, max(height, width) // 8)
    mix = np.clip(0.35 + mix, 0, 1)[..., None]
    return base * (1 - mix) + other * mix


def _clutter(canvas: Array, rng: Rng) -> None:
    """Draw things of no class: plain blobs, bands, wires and frames."""
    height, width = canvas.shape[:2]
    side = min(height, width)
    for _ in range(rng.integers(2, 8)):
        colour = tuple(float(c) for c in _colour(rng, rng.uniform(0.15, 0.85)))
        centre = rng.uniform(0, 1, 2) * (width, height)
        kind = rng.integers(4)
        if kind <= 1:
            angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            wobble = sum(
                rng.uniform(0, 0.3 / k) * np.sin(k * angle + rng.uniform(0, 7)) for k in range(1, 5)
            )
            radius = side * np.exp(rng.uniform(np.log(0.03), np.log(0.2))) * (1 + wobble)
            ring = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.5, 1, 2)
            points = centre + ring * radius[:, None]
            layer = canvas.copy()
            cv2.fillPoly(layer, [_fixed(points)], colour, cv2.LINE_AA, 4)
            shade = 1 + 0.5 * _ramp(rng, height, width)[..., None]
            np.copyto(canvas, np.where(layer != canvas, layer * shade, layer))
        elif kind == 2:
            steps = rng.normal(0, 0.18 * side, (5, 2))
            points = centre + np.cumsum(steps, 0)
            thickness = int(rng.integers(1, max(2, side // 24) + 1))
            cv2.polylines(canvas, [_fixed(points)], False, colour, thickness, cv2.LINE_AA, 4)
        else:
            half = side * rng.uniform(0.03, 0.14)
            turn = rng.uniform(0, np.pi)
            corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half * rng.uniform(0.4, 1, 2)
            points = centre + corners @ _rotation(turn)
            thickness = int(rng.integers(1, 4))
            cv2.polylines(canvas, [_fixed(points)], True, colour, thickness, cv2.LINE_AA, 4)


def _rotation(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s], [-s, c]])


def _fixed(points: Array) -> Array:
    """Points as OpenCV's fixed-point numbers with four fractional bits."""
    return np.round(points * 16).astype(np.int32)


# --------------------------------------------------------------------------------- objects
class Patch(NamedTuple):
    """A drawn object: top-left corner, cover (h, w) in 0 … 1, colour (h, w, 3), whole area."""

    left: int
    top: int
    cover: Array
    colour: Array
    area: float


def _draw_object(
    rng: Rng, outline: str, texture: str, centre: Array, size: float, picture: Tuple[int, int]
) -> Optional[Patch]:
    """Draw one object, or nothing if too little of it would be in the picture."""
    height, width = picture
    aspect = np.exp(rng.uniform(-0.22, 0.22))
    turn = rng.uniform(-0.4, 0.4)
    scale = size / 2 * np.array([aspect**0.5, aspect**-0.5])
    points = (OUTLINES[outline] * scale) @ _rotation(turn)
    low, high = points.min(0), points.max(0)
    # Turning shifts the extent; the object is centred on its box, as a detector sees it.
    points, low, high = points - (low + high) / 2, (low - high) / 2, (high - low) / 2
    points += centre
    left, top = np.floor(np.maximum(centre + low, 0)).astype(int)
    right = int(min(np.ceil(centre[0] + high[0]) + 1, width))
    bottom = int(min(np.ceil(centre[1] + high[1]) + 1, height))
    if right - left < 2 or bottom - top < 2:
        return None
    fine = 4 if size < 48 else 2
    shape = ((bottom - top) * fine, (right - left) * fine)
    mask = np.zeros(shape, np.uint8)
    # Pixel centres lie at half-integers of the picture but at integers for OpenCV.
    inside = (points - (left, top)) * fine - 0.5
    cv2.fillPoly(mask, [_fixed(inside)], 255, cv2.LINE_8, 4)
    mask = cv2.resize(mask, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    cover = mask.astype(np.float32) / 255

    period = max(size / rng.uniform(2.8, 6.0), 3.2)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x = (x + 0.5) / fine + left - centre[0]
    y = (y + 0.5) / fine + top - centre[1]
    c, s = np.cos(turn), np.sin(turn)
    u, v = (x * c + y * s) / period, (y * c - x * s) / period
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    phase = rng.uniform(0, 1, 2)
    values = TEXTURES[texture](u + phase[0] + 64, v + phase[1] + 64, radius, angle, rng)
    values = cv2.resize(
        np.asarray(values, np.float32), cover.shape[::-1], interpolation=cv2.INTER_AREA
    )[..., None]
    first, second = _two_colours(rng)
    colour = first * (1 - values) + second * values
    shade = 1 + rng.uniform(0.1, 0.5) * _ramp(rng, *cover.shape)
    x, y = points[:, 0], points[:, 1]
    area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    return Patch(left, top, cover, colour * shade[..., None], float(area))


def _shadow(canvas: Array, patch: Patch, rng: Rng) -> None:
    """Darken what lies beside the object, so that it rests on the ground and is not pasted."""
    height, width = canvas.shape[:2]
    reach = max(1, int(0.06 * max(patch.cover.shape)))
    dx, dy = rng.integers(-reach, reach + 1, 2)
    strength = rng.uniform(0.1, 0.5)
    moved = np.zeros((height, width), np.float32)
    h, w = patch.cover.shape
    top, left = patch.top + int(dy), patch.left + int(dx)
    rows, columns = slice(max(top, 0), max(top + h, 0)), slice(max(left, 0), max(left + w, 0))
    part = patch.cover[max(-top, 0) : height - top, max(-left, 0) : width - left]
    moved[rows, columns] = part
    moved = cv2.GaussianBlur(moved, (0, 0), 0.5 + 0.5 * reach)
    canvas *= (1 - strength * moved)[..., None]


class _Scene:
    """A canvas with the index of the object seen at each pixel."""

    def __init__(self, rng: Rng, height: int, width: int) -> None:
        self.rng = rng
        self.canvas = np.ascontiguousarray(_background(rng, height, width), dtype=np.float32)
        self.owner = np.full((height, width), -1, np.int32)
        self.whole: List[int] = []
        self.labels: List[int] = []
        self.crowds: List[bool] = []

    @property
    def size(self) -> Tuple[int, int]:
        height, width = self.owner.shape
        return height, width

    def put(self, patch: Patch, label: int, crowd: bool = False, join: bool = False) -> bool:
        """Place an object in front; refuse where that would hide another one too much."""
        h, w = patch.cover.shape
        window = np.s_[patch.top : patch.top + h, patch.left : patch.left + w]
        solid = patch.cover >= 0.5
        covered = self.owner[window][solid]
        visible = np.bincount(self.owner[self.owner >= 0], minlength=len(self.whole))
        lost = np.bincount(covered[covered >= 0], minlength=len(self.whole))
        remaining = visible - lost
        if any(remaining[i] < MIN_VISIBLE * self.whole[i] for i in np.flatnonzero(lost)):
            if not join or np.flatnonzero(lost).tolist() != [len(self.whole) - 1]:
                return False
        _shadow(self.canvas, patch, self.rng)
        alpha = patch.cover[..., None]
        self.canvas[window] = self.canvas[window] * (1 - alpha) + patch.colour * alpha
        if not join:
            self.whole.append(0)
            self.labels.append(label)
            self.crowds.append(crowd)
        self.owner[window][solid] = len(self.whole) - 1
        self.whole[-1] = int((self.owner == len(self.whole) - 1).sum())
        return True

    def objects(self) -> List[DrawnObject]:
        return [
            DrawnObject(label, self.owner == index, self.crowds[index])
            for index, label in enumerate(self.labels)
        ]


def _add_one(scene: _Scene, classes: List[Tuple[str, str]], label: int) -> None:
    rng, (height, width) = scene.rng, scene.size
    side = min(height, width)
    for _ in range(_PLACEMENT_TRIES):
        size = side * np.exp(rng.uniform(np.log(_SMALLEST), np.log(_LARGEST)))
        centre = rng.uniform(0, 1, 2) * (width, height)
        patch = _draw_object(rng, *classes[label], centre, size, scene.size)
        if patch is None or patch.cover.sum() < MIN_INSIDE * patch.area:
            continue
        if scene.put(patch, label):
            return


def _add_filling(scene: _Scene, classes: List[Tuple[str, str]], label: int) -> None:
    rng, (height, width) = scene.rng, scene.size
    centre = np.array([width, height]) * rng.uniform(0.47, 0.53, 2)
    size = max(height, width) * rng.uniform(1.15, 1.4)
    patch = _draw_object(rng, *classes[label], centre, size, scene.size)
    if patch is not None:
        scene.put(patch, label)


def _add_crowd(scene: _Scene, classes: List[Tuple[str, str]], label: int) -> None:
    """A heap of small objects of one class, annotated as one crowd."""
    rng, (height, width) = scene.rng, scene.size
    side = min(height, width)
    middle = rng.uniform(0.25, 0.75, 2) * (width, height)
    spread = side * rng.uniform(0.06, 0.11)
    joined = False
    for _ in range(rng.integers(9, 17)):
        centre = middle + rng.normal(0, spread, 2)
        size = side * rng.uniform(0.06, 0.1)
        patch = _draw_object(rng, *classes[label], centre, size, scene.size)
        if patch is not None and scene.put(patch, label, crowd=True, join=joined):
            joined = True


def _finish(canvas: Array, rng: Rng) -> Array:
    """Lighting, optics and sensor: what makes drawn things one picture."""
    height, width = canvas.shape[:2]
    light = 1 + rng.uniform(0, 0.7) * _ramp(rng, height, width)
    light += rng.uniform(0, 0.12) * _smooth(rng, height, width, 3)
    canvas = canvas * light[..., None] * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    canvas = (canvas - 128) * rng.uniform(0.75, 1.15) + 128 + rng.uniform(-18, 18)
    sigma = rng.uniform(0.25, 0.85)
    canvas = cv2.GaussianBlur(canvas, (0, 0), sigma)
    grey = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(2, 9))
    noise = rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(1, 4)) + grey
    return np.clip(np.round(canvas + noise), 0, 255).astype(np.uint8)


def draw_picture(
    classes: List[Tuple[str, str]], size: Tuple[int, int], seed: int, split_key: int, index: int
) -> Tuple[Array, List[DrawnObject]]:
    """Draw one picture of the data set; it depends on the arguments alone.

    Args:
        classes (List[Tuple[str, str]]): Outline and texture of each class.
        size (Tuple[int, int]): Width and height in pixels.
        seed (int): Seed of the data set.
        split_key (int): A number for the split.
        index (int): Number of the picture in its split.

    Returns:
        Tuple[Array, List[DrawnObject]]: The picture (H, W, 3), BGR uint8, and its objects from the
        back to the front.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, split_key, index]))
    # A golden-ratio sequence instead of a random number, so that small splits hold the rare kinds
    # in the stated shares as well.
    start = np.random.default_rng(np.random.SeedSequence([seed, split_key])).random()
    kind = (start + index * _GOLDEN) % 1
    width, height = size
    scene = _Scene(rng, height, width)
    _clutter(scene.canvas, rng)
    pick = lambda: int(rng.integers(len(classes)))  # noqa: E731
    if kind < _EMPTY:
        pass
    elif kind < _EMPTY + _FILLED:
        _add_filling(scene, classes, pick())
    else:
        if kind < _EMPTY + _FILLED + _CROWDED:
            _add_crowd(scene, classes, pick())
        for _ in range(1 + min(int(rng.poisson(2.4)), 7)):
            _add_one(scene, classes, pick())
    for _ in range(rng.integers(0, 3)):
        # Wires in front: thin enough not to hide anything.
        ends = rng.uniform(-0.1, 1.1, (3, 2)) * (width, height)
        colour = tuple(float(c) for c in _colour(rng, rng.uniform(0.15, 0.85)))
        cv2.polylines(scene.canvas, [_fixed(ends)], False, colour, 1, cv2.LINE_AA, 4)
    return _finish(scene.canvas, rng), scene.objects()
