"""Crops of random area and aspect ratio."""

import mmcv
import numpy as np
import pytest

from mmdet_contrast.datasets.transforms import RandomResizedCrop


def image(height=60, width=90):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_result_is_the_resized_rectangle_and_the_image_is_kept():
    img = image()
    kept = img.copy()
    for _ in range(20):
        out = RandomResizedCrop((32, 24))(dict(img=img))
        x1, y1, x2, y2 = out['crop_box']
        assert 0 <= x1 < x2 <= 90 and 0 <= y1 < y2 <= 60
        assert out['img'].shape == (24, 32, 3) and out['img_shape'] == (24, 32)
        np.testing.assert_array_equal(out['img'], mmcv.imresize(img[y1:y2, x1:x2], (32, 24)))
    np.testing.assert_array_equal(img, kept)


def test_area_and_ratio_fill_their_ranges():
    transform = RandomResizedCrop(8, area_range=(0.2, 0.5), ratio_range=(0.5, 2.0))
    boxes = [transform(dict(img=image(200, 200)))['crop_box'] for _ in range(400)]
    sizes = np.array([(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes], float)
    area, ratio = sizes.prod(axis=1) / 200**2, sizes[:, 0] / sizes[:, 1]
    assert 0.19 < area.min() < 0.22 and 0.48 < area.max() < 0.51
    assert abs(area.mean() - 0.35) < 0.02
    assert 0.48 < ratio.min() < 0.55 and 1.8 < ratio.max() < 2.1
    # uniform in the logarithm: as many flat crops as tall ones
    assert abs((ratio > 1).mean() - 0.5) < 0.1


@pytest.mark.parametrize('shape, size', [((10, 1000), (13, 10)), ((1000, 10), (10, 13))])
def test_an_extreme_image_gives_its_centre(shape, size):
    out = RandomResizedCrop(8, area_range=(0.9, 1.0))(dict(img=image(*shape)))
    x1, y1, x2, y2 = out['crop_box']
    assert (x2 - x1, y2 - y1) == size
    assert abs((x1 + x2) - shape[1]) <= 1 and abs((y1 + y2) - shape[0]) <= 1


def test_one_pixel_and_grey_images():
    assert RandomResizedCrop(8)(dict(img=image(1, 1)))['img'].shape == (8, 8, 3)
    assert RandomResizedCrop(8)(dict(img=image()[..., 0]))['img'].shape == (8, 8)


def test_refuses_boxes():
    with pytest.raises(ValueError, match='remove LoadAnnotations'):
        RandomResizedCrop(8)(dict(img=image(), gt_bboxes=[]))
