"""Image files, videos and cameras, frame by frame."""

import cv2
import numpy as np
import pytest

from mmdet_contrast.apis.frame_sources import find_sources
from mmdet_contrast.utils.config import LaunchError


class FakeCapture:
    """What ``cv2.VideoCapture`` offers; frame 2 is damaged."""

    def __init__(self, length=6, rate=10.0, announced=-1.0, opened=True):
        self.length, self.opened, self.at, self.released = length, opened, -1, False
        self.values = {cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_FRAME_COUNT: announced}

    def isOpened(self):
        return self.opened

    def set(self, *_):
        return True

    def get(self, what):
        return self.values[what]

    def grab(self):
        self.at += 1
        return self.at < self.length

    def retrieve(self):
        return (False, None) if self.at == 2 else (True, np.full((4, 6, 3), self.at, np.uint8))

    def release(self):
        self.released = True


@pytest.fixture
def capture(monkeypatch):
    """Make every video and camera a fake one with the given properties."""

    def _capture(**options):
        fake = FakeCapture(**options)
        monkeypatch.setattr(cv2, 'VideoCapture', lambda target: fake)
        return fake

    return _capture


def test_camera(capture):
    fake = capture()
    (source,) = find_sources(['0'])
    assert source.live and source.total is None and source.name.startswith('camera0_')
    frames = list(source.frames())
    assert [frame.number for frame in frames] == [frame.image.mean() for frame in frames]
    assert [frame.number for frame in frames] == [0, 1, 3, 4, 5]
    times = [frame.time for frame in frames]
    assert times[0] == 0 and times == sorted(times)
    assert source.failures == ['camera 0: frame 2 cannot be decoded']
    assert fake.released


def test_what_gives_no_picture(capture):
    capture(length=0)
    (source,) = find_sources(['0'])
    assert list(source.frames()) == []
    assert source.failures == ['camera 0: ends after 0 of ? frames, so it is damaged or cut off']
    capture(opened=False)
    with pytest.raises(LaunchError, match="'camera 7' does not open"):
        find_sources(['7'])


@pytest.mark.parametrize(
    'name, options, rate, total, cut',
    [
        ('a.mp4', dict(announced=6), 10.0, 6, False),
        ('a.mp4', dict(announced=12), 10.0, 12, True),
        # of other containers the number is an estimate, which a rate that varies makes too large
        ('a.mkv', dict(announced=12), 10.0, 12, False),
        # a rate that is none says nothing about the number
        ('a.mp4', dict(rate=1000.0, announced=12), 30.0, None, False),
    ],
)
def test_video(name, options, rate, total, cut, capture, tmp_path):
    (tmp_path / name).touch()
    capture(**options)
    (source,) = find_sources([tmp_path / name])
    assert (source.rate, source.total, source.name) == (rate, total, name)
    assert [frame.time for frame in source.frames()] == [i / rate for i in (0, 1, 3, 4, 5)]
    assert any('ends after 6 of 12 frames' in line for line in source.failures) == cut


def test_what_is_found(capture, tmp_path):
    names = ['a/1.png', 'a/2.JPG', 'a/3.mp4', 'a/.4.png', 'a/notes.txt', 'a/below/5.png', 'b/6.avi']
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    capture(opened=False)
    folder = str(tmp_path / 'a')
    # the video of a folder is opened when its turn comes
    images, video = find_sources([folder, str(tmp_path / 'a/1.png'), str(tmp_path / 'a/below')])
    assert images.files == [f'{folder}/1.png', f'{folder}/2.JPG', f'{folder}/below/5.png']
    assert (images.total, video.name) == (3, '3.mp4')
    frames = images.frames(lambda path: np.zeros((2, 2, 3)))
    assert [frame.name for frame in frames] == ['1.png', '2.JPG', 'below/5.png']
    capture()
    (found,) = find_sources([tmp_path / 'b/6.avi'])
    assert found.name == '6.avi'
    # a thousand open files would be too many
    assert found._capture is None
    with pytest.raises(LaunchError, match="source 'absent.jpg' does not exist"):
        find_sources(['absent.jpg'])
    with pytest.raises(LaunchError, match='holds no image and no video'):
        find_sources([tmp_path])
