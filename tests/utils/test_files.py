"""JSON written as a whole, and sizes of images."""

import io
import json
import os
import struct
import zlib

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from mmdet_contrast.utils import files
from mmdet_contrast.utils.files import image_size, load_image, write_json


@pytest.mark.parametrize('name', ['fsync', 'replace'])
def test_write_json_replaces_atomically(tmp_path, monkeypatch, name):
    path = tmp_path / 'deep' / 'x.json'
    write_json(path, {'old': 1})

    def crash(*args, **kwargs):
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(files.os, name, crash)
        with pytest.raises(OSError, match='disk full'):
            write_json(path, {'new': 2})
    with pytest.raises(ValueError):
        write_json(path, {'bad': float('nan')})
    assert json.loads(path.read_text()) == {'old': 1}
    assert os.listdir(path.parent) == ['x.json']
    write_json(path, {'new': 2})
    assert json.loads(path.read_text()) == {'new': 2}


def test_image_size_follows_the_cameras_rotation(tmp_path):
    path = tmp_path / 'turned.jpg'
    image = Image.new('RGB', (60, 40))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    width, height, orientation = image_size(path, verify=True)
    assert (width, height, orientation) == (40, 60, 6)
    assert cv2.imread(str(path)).shape[:2] == (height, width)


def test_truncated_image_is_found_only_when_verified(tmp_path):
    path = tmp_path / 'a.png'
    Image.effect_noise((60, 40), 50).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    assert image_size(path, verify=False)[:2] == (60, 40)
    with pytest.raises(OSError):
        image_size(path, verify=True)


def _noise(width=60, height=40):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _jpeg_with_orientation(order, kind, value):
    """Write a JPEG whose EXIF data hold an orientation of any type, as 4 raw bytes."""
    stream = io.BytesIO()
    _noise().save(stream, 'jpeg')
    plain = stream.getvalue()
    sign = '<' if order == b'II' else '>'
    tiff = order + struct.pack(f'{sign}HIHHHI', 42, 8, 1, 0x112, kind, 1) + value + bytes(4)
    segment = b'Exif\0\0' + tiff
    return plain[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + plain[2:]


@pytest.mark.parametrize('verify', [False, True])
@pytest.mark.parametrize(
    'order, kind, value',
    [
        (b'II', 3, struct.pack('<HH', 6, 0)),
        (b'II', 4, struct.pack('<I', 6)),
        (b'II', 4, struct.pack('<I', 0x10001)),
        (b'II', 4, struct.pack('<I', 0x10006)),
        (b'II', 1, b'\6\0\0\0'),
        (b'II', 2, b'6\0\0\0'),
        (b'II', 3, struct.pack('<HH', 9, 0)),
        (b'MM', 3, struct.pack('>HH', 3, 0)),
        (b'MM', 4, struct.pack('>I', 6)),
        (b'MM', 4, struct.pack('>I', 0x60001)),
    ],
)
def test_orientation_of_any_type_is_judged_as_the_decoder_does(
    tmp_path, order, kind, value, verify
):
    path = tmp_path / 'a.jpg'
    path.write_bytes(_jpeg_with_orientation(order, kind, value))
    picture = mmcv.imread(path)
    stored = mmcv.imread(path, flag='color_ignore_orientation')
    width, height, orientation = image_size(path, verify)
    assert (height, width) == picture.shape[:2]
    assert (orientation == 1) == np.array_equal(stored, picture)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('name', ['a.jpg', 'a.tif'])
def test_size_and_orientation_that_opencv_applied(tmp_path, name, orientation):
    path = tmp_path / name
    image = _noise()
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(path, exif=exif)
    height, width = mmcv.imread(path).shape[:2]
    assert image_size(path, verify=False) == (width, height, orientation)
    assert image_size(path, verify=True) == (width, height, orientation)


def test_orientation_at_the_end_of_a_png_file(tmp_path):
    path = tmp_path / 'a.png'
    _noise().save(path)
    plain = path.read_bytes()
    chunk = b'eXIfII' + struct.pack('<HIHHHIHHI', 42, 8, 1, 0x112, 3, 1, 6, 0, 0)
    chunk = struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', zlib.crc32(chunk))
    path.write_bytes(plain[:-12] + chunk + plain[-12:])
    height, width = mmcv.imread(path).shape[:2]
    turned = (width, height) != (60, 40)
    assert image_size(path, verify=True) == (width, height, 6 if turned else 1)


def test_orientation_in_xmp_alone_is_not_applied(tmp_path):
    path = tmp_path / 'a.jpg'
    stream = io.BytesIO()
    _noise().save(stream, 'jpeg')
    packet = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    segment = b'\xff\xe1' + struct.pack('>H', len(packet) + 2) + packet
    path.write_bytes(stream.getvalue()[:2] + segment + stream.getvalue()[2:])
    assert image_size(path, verify=False) == (60, 40, 1)


def test_large_pictures_that_opencv_reads_are_read(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    _noise().save(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert image_size(path, verify=True) == (60, 40, 1)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_formats_that_only_opencv_knows(tmp_path):
    path = tmp_path / 'a.hdr'
    cv2.imwrite(str(path), np.ones((40, 60, 3), np.float32))
    assert image_size(path, verify=False) == (60, 40, 1)


@pytest.mark.parametrize('content', [b'', b'<html></html>'])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    for read in (load_image, lambda path: image_size(path, verify=False)):
        with pytest.raises(OSError, match='OpenCV.*cannot decode'):
            read(path)
