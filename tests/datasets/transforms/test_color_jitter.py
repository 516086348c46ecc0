"""Random brightness, contrast, saturation and hue."""

import numpy as np
import pytest

from mmdet_contrast.datasets.transforms import ColorJitter


def image():
    return np.random.default_rng(0).integers(40, 160, (16, 20, 3), dtype=np.uint8)


def only(**strength):
    none = dict(brightness=0, contrast=0, saturation=0, hue=0)
    return ColorJitter(**{**none, **strength})


def test_nothing_changes_at_strength_zero():
    np.testing.assert_array_equal(only()(dict(img=image()))['img'], image())


def test_brightness_is_a_factor_within_its_range():
    img = image()
    factors = [only(brightness=0.4)(dict(img=img))['img'].mean() / img.mean() for _ in range(200)]
    assert 0.59 <= min(factors) < 0.65 and 1.35 < max(factors) <= 1.41
    np.testing.assert_array_equal(img, image())


def test_contrast_keeps_the_mean_grey_and_scales_the_spread():
    img = image()
    grey = np.array([0.114, 0.587, 0.299])
    for _ in range(20):
        out = only(contrast=0.4)(dict(img=img))['img']
        assert abs((out @ grey).mean() - (img @ grey).mean()) < 1.5
        assert 0.55 < out.std() / img.std() < 1.45


def test_saturation_keeps_the_grey_of_every_pixel():
    grey = np.array([0.114, 0.587, 0.299])
    out = only(saturation=0.4)(dict(img=image()))['img']
    assert np.abs(out @ grey - image() @ grey).max() < 3


def test_hue_keeps_grey_images():
    grey = np.repeat(image()[..., :1], 3, axis=2)
    np.testing.assert_array_equal(only(hue=0.5)(dict(img=grey))['img'], grey)
    assert (only(hue=0.5)(dict(img=image()))['img'] != image()).any()


@pytest.mark.parametrize('turns, colour', [(1 / 3, 1), (-1 / 3, 0)])
def test_hue_turns_both_ways(turns, colour, monkeypatch):
    monkeypatch.setattr(np.random, 'uniform', lambda low, high: turns)
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 2] = 200
    out = only(hue=0.5)(dict(img=red))['img']
    assert out[..., colour].min() == 200 and np.delete(out, colour, axis=2).max() < 15


def test_refuses_other_types():
    with pytest.raises(TypeError, match='float32, expected uint8.*to_float32=False'):
        ColorJitter()(dict(img=image().astype(np.float32)))
