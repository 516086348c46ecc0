"""Pictures are judged as training will see them."""

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from mmdet_contrast.converters.coco import ConversionReport
from mmdet_contrast.converters.pictures import Annotation, read_images
from mmdet_contrast.utils.config import LaunchError


def _ramp(highest, dtype, lowest=0, side=64):
    return np.linspace(lowest, highest, side * side).reshape(side, side).astype(dtype)


def _read(folder, split=None, **kwargs):
    report = ConversionReport()
    kwargs.setdefault('missing_annotations', 'empty')
    images = read_images(folder, '.xml', folder, lambda *_: Annotation([]), report, split, **kwargs)
    report.findings = [f for f in report.findings if f.kind != 'missing_annotation']
    return images, report


def _size(folder, name):
    images, report = _read(folder)
    return next((image[1:3] for image in images if image.file_name == name), None), report


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


def test_an_odd_pixel_does_not_hide_that_a_picture_is_black(tmp_path):
    values = _ramp(4095, np.uint16, side=300)
    values[:3] = 65535
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    size, report = _size(tmp_path, 'a.png')
    assert size is None and report.files('content_lost') == ['a.png']


@pytest.mark.parametrize(
    'values',
    [
        _ramp(65535, np.uint16),
        np.full((64, 64), 3000, np.uint16),
        _ramp(12, np.uint8),
        np.zeros((64, 64), np.uint8),
        # what is transparent shows nothing
        np.dstack([_ramp(12, np.uint8)] * 3 + [_ramp(255, np.uint8)]),
    ],
)
def test_dark_and_empty_pictures_are_no_problem(tmp_path, values):
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    size, report = _size(tmp_path, 'a.png')
    assert size == (64, 64) and report.findings == []


def test_a_rotated_picture_is_reported(tmp_path):
    image = Image.fromarray(_ramp(255, np.uint8)[:32])
    exif = image.getexif()
    exif[0x112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif)
    size, report = _size(tmp_path, 'a.jpg')
    assert size == mmcv.imread(tmp_path / 'a.jpg').shape[1::-1] == (32, 64)
    assert report.files('rotated_image') == ['a.jpg']


def test_a_dark_rotated_picture_is_kept(tmp_path):
    # after the rotation other rows are among the pixels that are looked at
    values = np.zeros((200, 200), np.uint8)
    values[::2, 100:], values[1::2, 100:] = 20, 10
    image = Image.fromarray(values)
    exif = image.getexif()
    exif[0x112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif, quality=100)
    size, report = _size(tmp_path, 'a.jpg')
    assert size == (200, 200) and report.files('content_lost') == []


def test_linked_folders_are_searched_and_circles_end(tmp_path):
    real, folder = tmp_path / 'real', tmp_path / 'images'
    real.mkdir()
    folder.mkdir()
    Image.fromarray(_ramp(255, np.uint8)).save(real / 'a.png')
    try:
        (folder / 'train').symlink_to(real, target_is_directory=True)
        (real / 'above').symlink_to(folder, target_is_directory=True)
        # twice the same
        (folder / 'a').symlink_to(folder / 'b', target_is_directory=True)
    except OSError:
        pytest.skip('no right to link')
    (folder / 'b').mkdir()
    Image.fromarray(_ramp(255, np.uint8)).save(folder / 'b' / 'c.png')
    images, report = _read(folder)
    assert [image.file_name for image in images] == ['b/c.png', 'train/a.png']
    assert report.findings == []


@pytest.mark.parametrize(
    'stated, differing', [('cam_1.25', 0), ('cam_1.25.jpg', 0), ('cam_1.gif', 1), ('cam_1', 1)]
)
def test_a_name_with_a_dot_in_an_annotation(tmp_path, stated, differing):
    Image.fromarray(_ramp(255, np.uint8)).save(tmp_path / 'cam_1.25.jpg')
    (tmp_path / 'cam_1.25.xml').touch()
    report = ConversionReport()
    images = read_images(
        tmp_path, '.xml', tmp_path, lambda *_: Annotation([], stated), report, None
    )
    assert [image.file_name for image in images] == ['cam_1.25.jpg']
    assert len(report.files('file_name_differs')) == differing


def test_a_name_that_cannot_be_written_is_left_out(tmp_path):
    Image.fromarray(_ramp(255, np.uint8)).save(tmp_path / 'a.png')
    try:
        (tmp_path / 'a.png').rename(tmp_path / 'b\udcff.png')
    except (OSError, UnicodeError):
        pytest.skip('the file system takes UTF-8 only')
    images, report = _read(tmp_path)
    assert images == []
    assert report.files('unreadable_name') == ["'b\\udcff.png'"]


NAMES = ('b', 'photo', 'photo 1', 'my  image', 'v1.0', 'a/photo', 'a/c', 'a/d', 'd/d', 'd/b')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('split')
    for name in NAMES:
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(_ramp(255, np.uint8)).save(root / f'{name}.jpg')
    return root


@pytest.mark.parametrize(
    'line, name',
    [
        ('photo.jpg', 'photo'),
        ('photo.png', 'photo'),
        ('JPEGImages/photo.jpg', 'photo'),
        ('./photo', 'photo'),
        ('..\\JPEGImages\\photo.xml', 'photo'),
        ('/data/voc/JPEGImages/photo.jpg ', 'photo'),
        ('C:\\voc\\a\\photo.jpg', 'a/photo'),
        ('images/a/photo', 'a/photo'),
        ('photo 0', 'photo'),
        ('photo 1', 'photo 1'),
        ('JPEGImages/photo 1.jpg', 'photo 1'),
        ('photo 1 -1', 'photo 1'),
        ('JPEGImages/photo.jpg  -1', 'photo'),
        ('my  image', 'my  image'),
        ('v1.0', 'v1.0'),
        ('v1.0 0', 'v1.0'),
        ('photo.JPG', 'photo'),
        ('c', 'a/c'),
        ('c.jpg', 'a/c'),
        ('c -1', 'a/c'),
        ('b', 'b'),
        ('d/b', 'd/b'),
    ],
)
def test_a_line_of_a_split_names_an_image_first(folder, tmp_path, line, name):
    path = tmp_path / 'train.txt'
    path.write_bytes(f'\ufeff\r\n{line}\r\n'.encode())
    images, report = _read(folder, path)
    assert [image.file_name for image in images] == [f'{name}.jpg']
    assert report.findings == []


def test_repeated_and_unknown_lines_of_a_split(folder, tmp_path):
    path = tmp_path / 'train.txt'
    path.write_text('photo\nb\nJPEGImages/photo.jpg\nc/lost 1\n')
    images, report = _read(folder, path)
    assert [image.file_name for image in images] == ['b.jpg', 'photo.jpg']
    assert report.files('duplicate_image') == ['train.txt']
    assert report.files('missing_image') == ['c/lost 1.xml']
    for encoding in ('gbk', 'utf-16'):
        path.write_text('照片\n', encoding=encoding)
        with pytest.raises(LaunchError, match='train.txt is not text in UTF-8'):
            _read(folder, path)


@pytest.mark.parametrize('line', ['photo.1', 'd', 'e/c'])
def test_a_line_that_names_no_image_or_several_is_missing(folder, tmp_path, line):
    path = tmp_path / 'train.txt'
    path.write_text(line)
    images, report = _read(folder, path)
    assert images == [] and report.files('missing_image') == [f'{line}.xml']


@pytest.mark.parametrize(
    'lines, found, missing',
    [
        ('photo 0\nb  1\nv1.0 -1', ['b', 'photo', 'v1.0'], []),
        # among names 1 and 0 are parts of a name
        ('b\nphoto 0', ['b'], ['photo 0.xml']),
        ('photo 1\nphoto 0', ['photo 1'], ['photo 0.xml']),
    ],
)
def test_only_where_every_line_has_a_column_it_is_one(folder, tmp_path, lines, found, missing):
    path = tmp_path / 'train.txt'
    path.write_text(lines)
    images, report = _read(folder, path)
    assert [image.file_name for image in images] == [f'{name}.jpg' for name in found]
    assert report.files('missing_image') == missing


def test_the_bar_is_no_output(folder, capsys):
    _read(folder)
    assert capsys.readouterr() == ('', '')
