"""JSON written as a whole, and pictures."""

import io
import json
import os
import struct

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from mmdet_contrast.utils import files
from mmdet_contrast.utils.files import check_image, load_image, write_json


def test_write_json_replaces_atomically(tmp_path, monkeypatch):
    path = tmp_path / 'deep' / 'x.json'
    write_json(path, {'old': 1})

    def crash(*args, **kwargs):
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(files.os, 'replace', crash)
        with pytest.raises(OSError, match='disk full'):
            write_json(path, {'new': 2})
    with pytest.raises(ValueError):
        write_json(path, {'bad': float('nan')})
    assert json.loads(path.read_text()) == {'old': 1}
    assert os.listdir(path.parent) == ['x.json']
    write_json(path, {'new': 2})
    assert json.loads(path.read_text()) == {'new': 2}


def _noise(width=60, height=40):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_any_name_and_path_can_be_written(tmp_path):
    path = tmp_path / ('x' * 250 + '.json')
    name = os.fsdecode(b'caf\xe9.jpg')
    write_json(path, {'file_name': name})
    assert json.loads(path.read_text()) == {'file_name': name}


def test_truncated_image_is_refused(tmp_path):
    for name in ('a.png', 'a.jpg'):
        _noise().save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(OSError):
            check_image(tmp_path / name)


@pytest.mark.parametrize('orientation', range(1, 10))
@pytest.mark.parametrize('name', ['a.jpg', 'a.tif'])
def test_orientation_that_opencv_applies(tmp_path, name, orientation):
    path = tmp_path / name
    image = _noise()
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(path, exif=exif)
    height, width = mmcv.imread(path).shape[:2]
    assert check_image(path) == (orientation if orientation < 9 else 1)
    assert ((width, height) != (60, 40)) == (orientation in (5, 6, 7, 8))


def _jpeg_with(segment):
    stream = io.BytesIO()
    _noise().save(stream, 'jpeg')
    plain = stream.getvalue()
    return plain[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + plain[2:]


@pytest.mark.parametrize(
    'order, kind, value',
    [
        (b'II', 4, struct.pack('<I', 6)),
        (b'II', 4, struct.pack('<I', 0x10001)),
        (b'II', 4, struct.pack('<I', 0x10006)),
        (b'II', 2, b'6\0\0\0'),
        (b'MM', 4, struct.pack('>I', 6)),
        (b'MM', 4, struct.pack('>I', 0x60001)),
    ],
)
def test_orientation_of_any_type_is_judged_as_opencv_does(tmp_path, order, kind, value):
    path = tmp_path / 'a.jpg'
    tiff = struct.pack(('<' if order == b'II' else '>') + 'HIHHHI', 42, 8, 1, 0x112, kind, 1)
    path.write_bytes(_jpeg_with(b'Exif\0\0' + order + tiff + value + bytes(4)))
    stored = mmcv.imread(path, flag='color_ignore_orientation')
    assert (check_image(path) == 1) == np.array_equal(stored, mmcv.imread(path))


def test_orientation_in_xmp_alone_is_not_applied(tmp_path):
    path = tmp_path / 'a.jpg'
    path.write_bytes(_jpeg_with(b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'))
    assert mmcv.imread(path).shape[:2] == (40, 60)
    assert check_image(path) == 1


def test_large_pictures_that_opencv_reads_are_read(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    _noise().save(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert check_image(path) == 1
    assert Image.MAX_IMAGE_PIXELS == 100


def test_formats_that_only_opencv_knows(tmp_path):
    path = tmp_path / 'a.hdr'
    cv2.imwrite(str(path), np.ones((40, 60, 3), np.float32))
    assert check_image(path) == 1


@pytest.mark.parametrize('content', [b'', b'<html></html>'])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    for read in (load_image, check_image):
        with pytest.raises(OSError, match='OpenCV.*cannot decode'):
            read(path)
