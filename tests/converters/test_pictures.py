"""Pictures are judged as training will see them."""

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from mmdet_contrast.converters.coco import ConversionReport
from mmdet_contrast.converters.pictures import ImageFolder


def _ramp(highest, dtype, lowest=0, side=64):
    return np.linspace(lowest, highest, side * side).reshape(side, side).astype(dtype)


def _size(folder, name, verify=True):
    report = ConversionReport()
    return ImageFolder(folder, report, 'leave_out', verify).size(name), report


@pytest.mark.parametrize(
    'name, values',
    [
        ('float.tif', _ramp(1, np.float32)),
        ('float3.tif', np.dstack([_ramp(255, np.float32)] * 3)),
        ('int.tif', _ramp(100000, np.int32)),
    ],
)
def test_what_only_pillow_can_read_is_left_out(tmp_path, name, values):
    cv2.imwrite(str(tmp_path / name), values)
    unread = [name] if mmcv.imread(tmp_path / name) is None else []
    assert unread or (name == 'float3.tif' and cv2.__version__ < '5')
    size, report = _size(tmp_path, name)
    assert size == (None if unread else (64, 64)) and report.files('unreadable_image') == unread


@pytest.mark.parametrize(
    'values',
    [
        _ramp(1023, np.uint16),
        _ramp(4095, np.uint16),
        np.dstack([_ramp(4095, np.uint16)] * 3),
        _ramp(31000, np.uint16, lowest=30000),
        # an object of a few pixels
        np.pad(_ramp(4095, np.uint16, side=3), 300),
    ],
)
@pytest.mark.parametrize('name', ['deep.png', 'deep.tif'])
def test_pictures_that_training_would_see_as_black_are_left_out(tmp_path, name, values):
    cv2.imwrite(str(tmp_path / name), values)
    size, report = _size(tmp_path, name)
    assert size is None and report.files('content_lost') == [name]
    assert 'levels' in report.findings[0].detail
    size, report = _size(tmp_path, name, verify=False)
    assert size == (values.shape[1], values.shape[0]) and report.findings == []


def test_an_odd_pixel_does_not_hide_that_a_picture_is_black(tmp_path):
    values = _ramp(4095, np.uint16, side=300)
    values[7, 9] = 65535
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    size, report = _size(tmp_path, 'a.png')
    assert size is None and report.files('content_lost') == ['a.png']


def test_pictures_of_which_training_sees_enough_are_kept_and_reported(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), _ramp(16383, np.uint16))
    size, report = _size(tmp_path, 'a.png')
    assert size == (64, 64)
    (finding,) = report.findings
    assert finding.kind == 'content_lost' and finding.action == 'image kept'


@pytest.mark.parametrize(
    'values',
    [
        _ramp(65535, np.uint16),
        np.full((64, 64), 3000, np.uint16),
        _ramp(12, np.uint8),
        np.zeros((64, 64), np.uint8),
        np.dstack([_ramp(12, np.uint8)] * 3 + [np.full((64, 64), 255, np.uint8)]),
    ],
)
def test_dark_and_empty_pictures_are_no_problem(tmp_path, values):
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    size, report = _size(tmp_path, 'a.png')
    assert size == (64, 64) and report.findings == []


def test_a_picture_in_the_alpha_channel_is_left_out(tmp_path):
    values = np.zeros((64, 64, 4), np.uint8)
    values[..., 3] = _ramp(255, np.uint8)
    Image.fromarray(values).save(tmp_path / 'a.png')
    size, report = _size(tmp_path, 'a.png')
    assert size is None and 'alpha' in report.of_kind('content_lost')[0].detail


def test_other_pictures_in_a_file_are_reported(tmp_path):
    frames = [Image.fromarray(_ramp(255, np.uint8, lowest)) for lowest in (0, 9)]
    small = frames[0].resize((32, 32))
    for name, others in (('a.webp', frames[1:]), ('b.tif', frames[1:]), ('c.tif', [small])):
        frames[0].save(tmp_path / name, save_all=True, append_images=others)
        size, report = _size(tmp_path, name)
        if mmcv.imread(tmp_path / name) is None:
            # An OpenCV that reads no animated WebP.
            assert name == 'a.webp' and report.files('unreadable_image') == [name]
            continue
        assert size == (64, 64)
        assert report.files('several_pictures') == ([] if name == 'c.tif' else [name])


def test_a_rotated_picture_is_reported(tmp_path):
    image = Image.fromarray(_ramp(255, np.uint8)[:32])
    exif = image.getexif()
    exif[0x112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif)
    for verify in (True, False):
        size, report = _size(tmp_path, 'a.jpg', verify)
        assert size == mmcv.imread(tmp_path / 'a.jpg').shape[1::-1] == (32, 64)
        assert report.files('rotated_image') == ['a.jpg']


def test_a_name_that_cannot_be_written_is_left_out(tmp_path):
    Image.fromarray(_ramp(255, np.uint8)).save(tmp_path / 'a.png')
    try:
        (tmp_path / 'a.png').rename(tmp_path / 'b\udcff.png')
    except (OSError, UnicodeError):
        pytest.skip('the file system takes UTF-8 only')
    report = ConversionReport()
    assert ImageFolder(tmp_path, report, 'leave_out', True).names == {}
    assert report.files('unreadable_name') == ["'b\\udcff.png'"]
