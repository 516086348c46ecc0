"""Which files an inference writes."""

import cv2
import mmcv
import numpy as np
import pytest
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

from mmdet_contrast.utils.stream_sources import find_sources
from mmdet_contrast.utils.stream_writers import open_writer

PICTURE = np.full((6, 8, 3), (0, 200, 255), np.uint8)


def write_all(folder, out_dir, names):
    """Look at empty files of these names, and draw the same picture for each."""
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b'')
    (source,) = find_sources([str(folder)])
    with open_writer(source, str(out_dir), draw=True, save_json=True) as writer:
        for frame in source.frames(lambda path: PICTURE):
            writer.write(frame, [], PICTURE)
    assert {path.name for path in (out_dir / 'results').iterdir()} == {f'{n}.json' for n in names}
    return {path.name: cv2.imread(str(path)) for path in (out_dir / 'pictures').iterdir()}


def test_a_format_without_colours_is_replaced(tmp_path):
    drawn = write_all(tmp_path / 'in', tmp_path / 'out', ['a.pgm', 'b.png'])
    assert set(drawn) == {'a.pgm.png', 'b.png'}
    assert all((picture == PICTURE).all() for picture in drawn.values())


def test_the_replaced_name_is_no_one_elses(tmp_path):
    names = ['a.pgm', 'a.png', 'a.pgm.png', 'B.PGM']
    drawn = write_all(tmp_path / 'in', tmp_path / 'out', names)
    assert set(drawn) == {'a.pgm.png.png', 'a.png', 'a.pgm.png', 'B.PGM.png'}


def test_every_format_is_written(tmp_path):
    names = [f'a{extension}' for extension in IMG_EXTENSIONS]
    drawn = write_all(tmp_path / 'in', tmp_path / 'out', names)
    assert len(drawn) == len(names)
    for picture in drawn.values():
        assert np.abs(picture.astype(int) - PICTURE).max() < 20


def test_what_opencv_refuses_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise cv2.error('OpenCV(4.10.0) error: (-2) no such codec')

    monkeypatch.setattr(mmcv, 'imwrite', refuse)
    with pytest.raises(OSError, match=r"pictures/a\.png' cannot be written \(.*no such codec"):
        write_all(tmp_path / 'in', tmp_path / 'out', ['a.png'])
