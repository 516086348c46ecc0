"""What the generated classes look like: the outline of each, and the texture inside it."""

from typing import Callable, Dict, Optional, Tuple

import numpy as np

Array = np.ndarray
Rng = np.random.Generator
Texture = Callable[[Array, Array, Array, Array, Rng], Array]


# --------------------------------------------------------------------------------- outlines
def _from_radius(radius: Callable[[Array], Array]) -> Array:
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    r = radius(angle)
    return np.stack([r * np.sin(angle), -r * np.cos(angle)], axis=1)


def _regular(corners: int, inner: Optional[float] = None) -> Array:
    count = corners * (2 if inner else 1)
    angle = np.arange(count) * 2 * np.pi / count
    r = np.where(np.arange(count) % 2 == 1, inner, 1.0) if inner else np.ones(count)
    return np.stack([r * np.sin(angle), -r * np.cos(angle)], axis=1)


def _heart() -> Array:
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)


def _shield() -> Array:
    t = np.linspace(0, 1, 16)
    side = np.stack([np.cos(t * np.pi / 2) ** 0.8, -0.2 + 1.2 * np.sin(t * np.pi / 2)], axis=1)
    left = side[::-1][1:] * [-1, 1]
    return np.concatenate([[[-1, -1], [0, -0.82], [1, -1]], side, left])


_CROSS = np.array(
    [
        [-0.4, -1], [0.4, -1], [0.4, -0.4], [1, -0.4], [1, 0.4], [0.4, 0.4],
        [0.4, 1], [-0.4, 1], [-0.4, 0.4], [-1, 0.4], [-1, -0.4], [-0.4, -0.4],
    ]
)  # fmt: skip

_RAW_OUTLINES: Dict[str, Array] = {
    'disc': _from_radius(np.ones_like),
    'square': np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float),
    'triangle': np.array([[0, -1], [1, 1], [-1, 1]], dtype=float),
    'star': _regular(5, 0.52),
    'heart': _heart(),
    'hexagon': _regular(6),
    'flower': _from_radius(lambda a: 0.8 + 0.2 * np.cos(6 * a)),
    'cross': _CROSS,
    'diamond': np.array([[0, -1], [0.78, 0], [0, 1], [-0.78, 0]], dtype=float),
    'shield': _shield(),
}


def _normalised(points: Array) -> Array:
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) / (high - low).max() * 2


OUTLINES: Dict[str, Array] = {name: _normalised(p) for name, p in _RAW_OUTLINES.items()}


# --------------------------------------------------------------------------------- textures
# Each takes coordinates in periods, (u, v) with a random phase, and (r, a), the distance from the
# object's centre in periods and the angle; it returns 0 … 1, the mix of the object's two colours.
def _cell(u: Array, v: Array) -> Tuple[Array, Array]:
    return u - np.floor(u) - 0.5, v - np.floor(v) - 0.5


def _bricks(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    row = np.floor(v * 1.4)
    x = (u * 0.7 + 0.5 * (row % 2)) % 1
    return ((x < 0.16) | (v * 1.4 % 1 < 0.24)).astype(np.float32)


def _scales(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    out = np.zeros_like(u)
    v = v * 1.5
    for offset in (0, 1):
        row = np.floor(v) - offset
        x = (u + 0.5 * (row % 2)) % 1 - 0.5
        distance = np.hypot(x * 2, (v - row) * 1.0)
        if offset == 0:
            out = np.where(distance < 1, distance > 0.68, -1)
        else:
            out = np.where(out < 0, distance > 1.55, out)
    return out.astype(np.float32)


def _speckles(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    keys = rng.random(4099)
    i, j = np.floor(u * 2.2).astype(np.int64), np.floor(v * 2.2).astype(np.int64)
    return (keys[(i * 73 + j * 1009) % 4099] < 0.4).astype(np.float32)


def _mottles(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    total = np.zeros_like(u)
    for _ in range(5):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        frequency = rng.uniform(4.0, 7.0)
        total += np.sin(frequency * (u * np.cos(angle) + v * np.sin(angle)) + phase)
    return (total > 0.3).astype(np.float32)


def _plusses(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    x, y = _cell(u * 0.8, v * 0.8)
    x, y = np.abs(x), np.abs(y)
    return (((x < 0.11) & (y < 0.36)) | ((y < 0.11) & (x < 0.36))).astype(np.float32)


def _argyle(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    x, y = _cell(u * 0.9 + v * 0.45, v * 0.45 - u * 0.9)
    return ((np.abs(x) < 0.34) & (np.abs(y) < 0.34)).astype(np.float32)


def _dots(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    return (np.hypot(*_cell(u, v)) < 0.31).astype(np.float32)


def _bubbles(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    distance = np.hypot(*_cell(u * 0.75, v * 0.75))
    return ((distance > 0.2) & (distance < 0.4)).astype(np.float32)


def _mesh(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    x, y = _cell(u, v)
    return ((np.abs(x) > 0.36) | (np.abs(y) > 0.36)).astype(np.float32)


def _zigzag(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    return ((v + 1.1 * np.abs(u * 0.7 % 1 - 0.5)) % 1 < 0.5).astype(np.float32)


def _waves(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    return ((u + 0.32 * np.sin(v * 3.6)) % 1 < 0.42).astype(np.float32)


def _quarters(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    return (np.sin(2 * a) > 0).astype(np.float32)


def _halves(u: Array, v: Array, r: Array, a: Array, rng: Rng) -> Array:
    return (np.cos(a + 0.35 * np.sin(r * 1.5)) > 0).astype(np.float32)


TEXTURES: Dict[str, Texture] = {
    'striped': lambda u, v, r, a, g: (v % 1 < 0.5).astype(np.float32),
    'checkered': lambda u, v, r, a, g: ((np.floor(u) + np.floor(v)) % 2).astype(np.float32),
    'dotted': _dots,
    'ringed': lambda u, v, r, a, g: (r % 1 < 0.5).astype(np.float32),
    'zigzag': _zigzag,
    'meshed': _mesh,
    'spoked': lambda u, v, r, a, g: (np.sin(7 * a) > 0).astype(np.float32),
    'bricked': _bricks,
    'wavy': _waves,
    'speckled': _speckles,
    'barred': lambda u, v, r, a, g: (u * 1.15 % 1 < 0.36).astype(np.float32),
    'slanted': lambda u, v, r, a, g: ((u + v) * 0.72 % 1 < 0.5).astype(np.float32),
    'scaled': _scales,
    'argyle': _argyle,
    'spiral': lambda u, v, r, a, g: ((r + a / (2 * np.pi)) % 1 < 0.5).astype(np.float32),
    'bubbled': _bubbles,
    'crossed': _plusses,
    'halved': _halves,
    'mottled': _mottles,
    'quartered': _quarters,
}
