"""Blur of random strength."""

import numpy as np
import pytest

from mmdet_contrast.datasets.transforms import GaussianBlur


def test_blurs_a_point_to_a_gaussian_of_the_drawn_width():
    point = np.zeros((65, 65, 1), np.float32)
    point[32, 32] = 1
    for sigma in (1.0, 2.0):
        out = GaussianBlur((sigma, sigma))(dict(img=point))['img'].reshape(65, 65)
        rows = np.arange(65) - 32
        assert out.sum() == pytest.approx(1, abs=1e-3)
        assert (out.sum(axis=1) * rows**2).sum() == pytest.approx(sigma**2, rel=0.05)


@pytest.mark.parametrize('size, blurred', [(32, False), (33, True)])
def test_leaves_small_images_alone(size, blurred):
    img = np.random.default_rng(0).integers(0, 256, (size, 64, 3), dtype=np.uint8)
    out = GaussianBlur((1.0, 2.0))(dict(img=img))['img']
    assert (out != img).any() == blurred
