"""Which videos count as damaged: a number of frames may be a guess from time and rate."""

import cv2
import numpy as np
import pytest

from mmdet_contrast.utils.stream_sources import find_sources


class FakeVideo:
    """What ``cv2.VideoCapture`` offers, for frames at any times (seconds)."""

    def __init__(self, times, rate, announced):
        self.times, self.at = times, -1
        self.values = {cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_FRAME_COUNT: announced}

    def isOpened(self):
        return True

    def get(self, what):
        if what == cv2.CAP_PROP_POS_MSEC:
            return 1000 * self.times[self.at]
        return self.values.get(what, 0.0)

    def grab(self):
        self.at += 1
        return self.at < len(self.times)

    def retrieve(self):
        return True, np.zeros((4, 6, 3), np.uint8)

    def release(self):
        pass


STEADY = [i / 10 for i in range(100)]
# a recording of a screen: pictures where something moves, and pauses
VARYING = [i / 30 for i in range(20)] + [3 + i / 30 for i in range(15)] + [6.0, 8.5, 9.0]
# name, times, announced rate and number of frames
WHOLE = {
    'rate varies': ('a.mkv', VARYING, 30.0, 300.0),
    'last frame stays': ('a.webm', [*VARYING[:-3], 7.5], 30.0, 330.0),
    'sound is longer': ('a.flv', STEADY, 10.0, 105.0),
    'last frame without a time': ('a.mpg', [*STEADY[:-5], 0.0], 10.0, 100.0),
    'rate is unknown': ('a.mkv', VARYING, 1000.0, 10000.0),
    'upper case': ('A.MKV', VARYING, 30.0, 300.0),
}
CUT = {
    'steady': ('a.mkv', STEADY[:50], 10.0, 100.0, '4.9 of 10.0 seconds'),
    'steady, near the end': ('a.mkv', STEADY[:90], 10.0, 100.0, '8.9 of 10.0 seconds'),
    'begins late': ('a.mkv', [t + 4 for t in STEADY[:30]], 10.0, 110.0, '6.9 of 11.0 seconds'),
    'short': ('a.mkv', STEADY[:15], 10.0, 20.0, '1.4 of 2.0 seconds'),
    'rate varies': ('a.webm', VARYING[:30], 30.0, 300.0, '3.3 of 10.0 seconds'),
    'frames have no times': ('a.mkv', [0.0] * 50, 10.0, 100.0, '50 of 100 frames'),
    # a table of frames tells their number, so that some are missing
    'counted': ('a.mp4', STEADY[::2], 10.0, 100.0, '50 of 100 frames'),
}


def read(folder, monkeypatch, name, times, rate, announced, **options):
    path = folder / name
    path.write_bytes(b'')
    monkeypatch.setattr(cv2, 'VideoCapture', lambda _: FakeVideo(times, rate, announced))
    (source,) = find_sources([path], **options)
    return source, list(source.frames(None))


@pytest.mark.parametrize('kind', WHOLE)
@pytest.mark.parametrize('every', [1, 4])
def test_whole_video(kind, every, tmp_path, monkeypatch):
    source, frames = read(tmp_path, monkeypatch, *WHOLE[kind], every=every)
    assert source.failures == []
    assert [frame.index for frame in frames] == list(range(0, len(WHOLE[kind][1]), every))


@pytest.mark.parametrize('kind', CUT)
@pytest.mark.parametrize('every', [1, 4])
def test_cut_video(kind, every, tmp_path, monkeypatch):
    *video, reached = CUT[kind]
    source, _ = read(tmp_path, monkeypatch, *video, every=every)
    path = tmp_path / video[0]
    assert source.failures == [f'{path}: it ends after {reached}, so it is damaged or cut off']


def test_a_replaced_rate_leaves_no_count(tmp_path, monkeypatch):
    source, _ = read(tmp_path, monkeypatch, *WHOLE['rate is unknown'])
    assert (source.rate, source.total) == (30.0, None)
    source, frames = read(tmp_path, monkeypatch, *WHOLE['rate is unknown'], max_frames=5)
    assert source.total == len(frames) == 5
    source, _ = read(tmp_path, monkeypatch, *WHOLE['rate varies'])
    assert (source.rate, source.total) == (30.0, 300)
