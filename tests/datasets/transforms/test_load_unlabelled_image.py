"""Loading of an image of unknown quality."""

import mmcv
import numpy as np
import pytest

from mmdet_contrast.datasets.transforms import LoadUnlabelledImage


def test_loads_as_mmcv_does(tmp_path):
    img = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    mmcv.imwrite(img, str(tmp_path / 'a.png'))
    out = LoadUnlabelledImage()(dict(img_path=str(tmp_path / 'a.png')))
    np.testing.assert_array_equal(out['img'], img)
    assert out['img_shape'] == out['ori_shape'] == (5, 7)


@pytest.mark.parametrize('content', [b'', b'text'])
def test_names_a_file_that_cannot_be_decoded(content, tmp_path):
    file = tmp_path / 'a.png'
    file.write_bytes(content)
    with pytest.raises(AssertionError, match=r'failed to load image: .*a\.png\n.*replace the file'):
        LoadUnlabelledImage()(dict(img_path=str(file)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.png'):
        LoadUnlabelledImage()(dict(img_path=str(tmp_path / 'nowhere.png')))
