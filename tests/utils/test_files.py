"""JSON written as a whole, and sizes of images."""

import json
import os

import cv2
import pytest
from PIL import Image

from mmdet_contrast.utils import files
from mmdet_contrast.utils.files import image_size, write_json


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
