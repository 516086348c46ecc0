"""What an inference leaves: pictures, videos and JSON."""

import json
import os
import os.path as osp
from typing import Any, Dict, List, Optional

import cv2
import mmcv
import numpy as np

from mmdet_contrast.utils.files import write_json

from .frame_sources import Frame, VideoStream

Detections = List[Dict[str, Any]]


class ImageWriter:
    """Writes ``pictures/<name>`` and ``results/<name>.json`` for each image.

    A ``.pgm`` holds no colours: its picture is ``<name>.png``.

    Args:
        out_dir (str): Folder to write to.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = out_dir

    def write(
        self, frame: Frame, detections: Detections, picture: Optional[np.ndarray] = None
    ) -> None:
        """Write the results of an image.

        Args:
            frame (Frame): The image.
            detections (list[dict]): What was found, ready for JSON.
            picture (ndarray, optional): (H, W, 3) uint8 BGR, with the boxes drawn.
        """
        if picture is not None:
            name = f'{frame.name}.png' if frame.name.lower().endswith('.pgm') else frame.name
            mmcv.imwrite(picture, osp.join(self.out_dir, 'pictures', name))
        height, width = frame.image.shape[:2]
        content = dict(image=frame.path, width=width, height=height, detections=detections)
        write_json(osp.join(self.out_dir, 'results', f'{frame.name}.json'), content, indent=1)

    def close(self) -> None:
        """Do nothing: the files are closed after each image."""


class StreamWriter:
    """Writes ``videos/<name>.mp4`` and ``results/<name>.jsonl``, a line for each frame.

    The video of a camera runs in real time: while the detector is busy, the last picture stays.

    Args:
        out_dir (str): Folder to write to.
        source (VideoStream): The open stream.
    """

    def __init__(self, out_dir: str, source: VideoStream) -> None:
        self.source = source
        name = source.name if source.name.endswith('.mp4') else f'{source.name}.mp4'
        self.video_path = osp.join(out_dir, 'videos', name)
        lines_path = osp.join(out_dir, 'results', f'{source.name}.jsonl')
        os.makedirs(osp.dirname(lines_path), exist_ok=True)
        self._lines = open(lines_path, 'w', encoding='utf-8', errors='backslashreplace')
        self._video: Optional[cv2.VideoWriter] = None
        self._size = (0, 0)
        self._written = 0
        self._last: Optional[np.ndarray] = None

    def write(
        self, frame: Frame, detections: Detections, picture: Optional[np.ndarray] = None
    ) -> None:
        """Write the results of a frame.

        Args:
            frame (Frame): The frame.
            detections (list[dict]): What was found, ready for JSON.
            picture (ndarray, optional): (H, W, 3) uint8 BGR, with the boxes drawn.

        Raises:
            OSError: If the video cannot be written.
        """
        line = dict(frame=frame.number, time=round(frame.time, 6), detections=detections)
        self._lines.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + '\n')
        self._lines.flush()
        if picture is None:
            return
        if self._video is None:
            self._open_video(picture)
        if picture.shape[1::-1] != self._size:
            # OpenCV would leave the frame out without a word
            picture = cv2.resize(picture, self._size)
        if self.source.live and self._last is not None:
            for _ in range(round(frame.time * self.source.rate) - self._written):
                self._put(self._last)
        self._put(picture)
        self._last = picture

    def close(self) -> None:
        """Finish the files; what has been written so far is kept."""
        self._lines.close()
        if self._video is not None:
            self._video.release()

    def _put(self, picture: np.ndarray) -> None:
        self._video.write(picture)
        self._written += 1

    def _open_video(self, picture: np.ndarray) -> None:
        os.makedirs(osp.dirname(self.video_path), exist_ok=True)
        self._size = picture.shape[1::-1]
        codec = cv2.VideoWriter.fourcc(*'mp4v')
        # the codec takes no more digits
        rate = self.source.rate if self.source.rate < 65 else round(self.source.rate, 1)
        self._video = cv2.VideoWriter(self.video_path, codec, rate, self._size)
        if not self._video.isOpened():
            raise OSError(
                f'{self.video_path!r} cannot be written: this OpenCV has no mp4 encoder, or the '
                'folder is not writable (--no-draw leaves the video out).'
            )
