import numpy as np
import pytest

from mmdet_contrast.datasets.transforms._patches import covered_share, resize_patch


@pytest.mark.parametrize(
    'dtype', ['uint8', 'uint16', 'int32', 'float16', 'float32', 'float64', 'bool']
)
@pytest.mark.parametrize('shape', [(20, 30), (20, 30, 1), (20, 30, 3)])
@pytest.mark.parametrize('size', [(30, 20), (7, 5), (64, 50), (7, 50), (1, 1)])
def test_resizing_keeps_dtype_channels_and_range(dtype, shape, size):
    patch = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    out = resize_patch(patch, *size)
    assert out.dtype == patch.dtype and out.shape == (size[1], size[0], *shape[2:])
    assert out.min() >= patch.min() and out.max() <= patch.max()
    assert not np.shares_memory(out, patch)


def test_shrinking_averages():
    board = np.indices((40, 40)).sum(axis=0) % 2 * 200
    # bilinear sampling of every fourth pixel would give stripes
    assert (resize_patch(board.astype(np.uint8), 10, 40) == 100).all()
    assert (resize_patch(board.astype(np.uint8), 10, 80) == 100).all()


def test_covered_share_against_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        corners = rng.integers(0, 20, (4, 2))
        box, *others = np.concatenate([corners, corners + rng.integers(1, 12, (4, 2))], axis=1)
        covered = [
            any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in others)
            for y in range(box[1], box[3])
            for x in range(box[0], box[2])
        ]
        assert covered_share(box, np.array(others)) == pytest.approx(np.mean(covered))
