"""Which files an inference writes."""

import json
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

from mmdet_contrast.apis.frame_sources import Frame
from mmdet_contrast.apis.frame_writers import ImageWriter, StreamWriter

PICTURE = np.full((48, 64, 3), (0, 200, 255), np.uint8)


@pytest.mark.parametrize('extension', IMG_EXTENSIONS)
def test_every_image_format_is_written_with_its_colours(extension, tmp_path):
    name = f'below/a{extension}'
    found = [dict(name='dog', score=0.5, box=[1.0, 2.0, 3.0, 4.0])]
    ImageWriter(str(tmp_path)).write(Frame(PICTURE, name, f'/x/{name}', 0, 0.0), found, PICTURE)
    (path,) = (tmp_path / 'pictures/below').iterdir()
    assert path.name == ('a.pgm.png' if extension == '.pgm' else f'a{extension}')
    assert np.abs(cv2.imread(str(path)).astype(int) - PICTURE).max() < 20
    content = json.loads((tmp_path / 'results' / f'{name}.json').read_text())
    assert content == dict(image=f'/x/{name}', width=64, height=48, detections=found)


def stream(live, rate=10.0):
    return SimpleNamespace(name='clip.avi', live=live, rate=rate)


def write(writer, pictures, times):
    for index, (picture, seconds) in enumerate(zip(pictures, times)):
        writer.write(Frame(picture, 'clip.avi', 'clip.avi', index, seconds), [], picture)
    writer.close()


def test_video_of_a_camera_runs_in_real_time(tmp_path):
    pictures = [np.full((48, 64, 3), 50 * i, np.uint8) for i in range(5)]
    write(StreamWriter(str(tmp_path), stream(True)), pictures, (0.0, 0.1, 0.5, 0.55, 1.2))
    made = list(mmcv.VideoReader(str(tmp_path / 'videos' / 'clip.avi.mp4')))
    levels = [round(frame.mean() / 50) for frame in made]
    assert levels == [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4]


@pytest.mark.parametrize('rate', [239.847, 90.123, 59.947])
def test_any_frame_rate(tmp_path, rate):
    write(StreamWriter(str(tmp_path), stream(False, rate)), [PICTURE] * 2, (0.0, 0.1))
    made = mmcv.VideoReader(str(tmp_path / 'videos' / 'clip.avi.mp4'))
    assert len(made) == 2 and made.fps == pytest.approx(rate, abs=0.05)


def test_stream_that_changes_its_size_keeps_every_frame(tmp_path):
    pictures = [PICTURE, PICTURE[:32], PICTURE]
    write(StreamWriter(str(tmp_path), stream(False)), pictures, (0.0, 0.1, 0.2))
    made = list(mmcv.VideoReader(str(tmp_path / 'videos' / 'clip.avi.mp4')))
    assert [frame.shape for frame in made] == [PICTURE.shape] * 3
    lines = (tmp_path / 'results' / 'clip.avi.jsonl').read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        dict(frame=i, time=i / 10, detections=[]) for i in range(3)
    ]


def test_a_video_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2.VideoWriter, 'isOpened', lambda self: False, raising=False)
    with pytest.raises(OSError, match='has no mp4 encoder'):
        write(StreamWriter(str(tmp_path), stream(False)), [PICTURE], [0.0])
