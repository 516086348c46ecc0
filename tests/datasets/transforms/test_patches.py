import numpy as np
import pytest

from mmdet_contrast.datasets.transforms._patches import fit_patch, paste_patch, resize_patch

DTYPES = ['uint8', 'uint16', 'int32', 'float16', 'float32', 'float64', 'bool']


def noise(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('shape', [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 6)])
@pytest.mark.parametrize('size', [(30, 20), (7, 5), (64, 50), (7, 50), (1, 1)])
def test_resizing_keeps_dtype_channels_and_range(dtype, shape, size):
    patch = noise(shape, dtype)
    out = resize_patch(patch, *size)
    assert out.dtype == patch.dtype and out.shape == (size[1], size[0], *shape[2:])
    assert out.min() >= patch.min() and out.max() <= patch.max()


def test_shrinking_averages():
    board = np.indices((40, 40)).sum(axis=0) % 2 * 200
    out = resize_patch(board.astype(np.uint8), 10, 40)
    assert (out == 100).all()  # bilinear sampling of every fourth pixel would give stripes


def test_stretch_and_crop():
    patch = np.zeros((20, 40), np.float32)
    patch[:, 10:30] = np.arange(20)
    assert np.array_equal(fit_patch(patch, 20, 20, keep_aspect=True), patch[:, 10:30])
    assert fit_patch(patch, 20, 20, keep_aspect=False)[:, :4].max() == 0
    assert fit_patch(patch, 300, 3, keep_aspect=True).shape == (3, 300)


def slow_paste(target, patch, rows, columns):
    out = target.astype(np.float64)
    height, width = patch.shape[:2]
    for y in range(height):
        for x in range(width):
            near_y, near_x = min(y, height - 1 - y), min(x, width - 1 - x)
            weight = min(
                (near_y + 0.5) / rows if rows else 1, (near_x + 0.5) / columns if columns else 1, 1
            )
            out[y, x] += weight * (patch[y, x].astype(np.float64) - out[y, x])
    return out


@pytest.mark.parametrize('dtype', [name for name in DTYPES if name != 'bool'])
@pytest.mark.parametrize('channels', [(), (3,)])
@pytest.mark.parametrize(
    'soft_edges, rows, columns', [(0.25, 3, 5), (0.5, 5, 10), (2, 2, 2), (9, 5, 9), (0.04, 0, 1)]
)
def test_soft_edges_against_a_loop(dtype, channels, soft_edges, rows, columns):
    # 11 rows, of which a quarter are 2.75 and half are 5
    target, patch = noise((11, 20, *channels), dtype), noise((11, 20, *channels), dtype, seed=1)
    expected = slow_paste(target, patch, rows, columns)
    out = target.copy()
    paste_patch(out, patch, soft_edges)
    tolerance = 0.5 if np.issubdtype(target.dtype, np.integer) else 0.1
    np.testing.assert_allclose(out, expected, atol=tolerance + 1e-3)
    assert (out >= np.minimum(target, patch)).all() and (out <= np.maximum(target, patch)).all()


def test_hard_edges():
    target, patch = noise((4, 5, 3), 'uint8'), noise((4, 5, 3), 'uint8', seed=1)
    paste_patch(target, patch)
    assert np.array_equal(target, patch)
