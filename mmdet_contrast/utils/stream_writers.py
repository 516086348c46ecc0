"""What an inference leaves: pictures, videos and JSON, whole at any moment."""

import json
import os
import os.path as osp
from typing import Any, Collection, Dict, List, Optional, Sequence, TextIO

import cv2
import mmcv
import numpy as np

from mmdet_contrast.datasets.converters._coco import write_json

from .stream_sources import Frame, FrameSource

__all__ = ['FrameSizeError', 'ResultWriter', 'open_writer', 'prepare_folder']

Detections = List[Dict[str, Any]]


class FrameSizeError(OSError):
    """A frame of another size than the first of its stream: the source's fault, not the disk's."""


class ResultWriter:
    """Writes the results of a source; :func:`open_writer` chooses which one.

    An image gets ``<out_dir>/pictures/<name>`` (``<name>.png`` of a ``.pgm``, which holds no
    colours) and ``<out_dir>/results/<name>.json``, a video or camera
    ``<out_dir>/videos/<name>.mp4`` and ``<out_dir>/results/<name>.jsonl``, a line for each frame.
    Pictures, JSON files and videos are written beside their place and moved there when they are
    whole; the lines of a stream are whole after each frame.

    Args:
        source (FrameSource): What is looked at.
        out_dir (str): Folder to write to.
        draw (bool): Whether to write pictures or a video.
        save_json (bool): Whether to write JSON.
        kept (Collection[str]): Real paths of files that no picture or video may take the place of.
    """

    def __init__(
        self,
        source: FrameSource,
        out_dir: str,
        draw: bool,
        save_json: bool,
        kept: Collection[str] = (),
    ) -> None:
        self.source = source
        self.kept = {*kept, *map(osp.realpath, source.files)}
        self.out_dir = out_dir
        self.draw = draw
        self.save_json = save_json

    def __enter__(self) -> 'ResultWriter':
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def write(self, frame: Frame, detections: Detections, picture: Optional[np.ndarray]) -> None:
        """Write the results of a frame.

        Args:
            frame (Frame): The frame.
            detections (list[dict]): What was found, as it is to be written.
            picture (ndarray, optional): (H, W, 3) uint8 BGR, with the boxes drawn.

        Raises:
            FrameSizeError: If the frame has another size than the first of its video.
            OSError: If a file cannot be written.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Finish the files; what has been written so far is kept."""

    def _refuse_source(self, what: str, path: str) -> None:
        if osp.realpath(path) in self.kept:
            raise OSError(
                f'the drawn {what} would take the place of {path!r}, which is one of the sources: '
                'give another folder for the results.'
            )


class _ImageWriter(ResultWriter):
    """A picture and a JSON file for each image."""

    def __init__(self, source: FrameSource, out_dir: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(source, out_dir, *args, **kwargs)
        self._pictures = _picture_names([osp.relpath(file, source.path) for file in source.files])
        for name in self._pictures if self.draw else ():
            self._refuse_source('picture', self._picture_path(name))

    def write(self, frame: Frame, detections: Detections, picture: Optional[np.ndarray]) -> None:
        if self.draw:
            _write_picture(self._picture_path(frame.name), picture)
        if self.save_json:
            height, width = frame.image.shape[:2]
            content = dict(image=frame.path, width=width, height=height, detections=detections)
            write_json(osp.join(self.out_dir, 'results', f'{frame.name}.json'), content, indent=1)

    def _picture_path(self, name: str) -> str:
        return osp.join(self.out_dir, 'pictures', self._pictures[name])


class _StreamWriter(ResultWriter):
    """An mp4 and a file of JSON lines."""

    def __init__(self, source: FrameSource, out_dir: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(source, out_dir, *args, **kwargs)
        name = source.name if source.name.endswith('.mp4') else f'{source.name}.mp4'
        self._video_path = osp.join(out_dir, 'videos', name)
        self._lines_path = osp.join(out_dir, 'results', f'{source.name}.jsonl')
        self._video: Optional[cv2.VideoWriter] = None
        self._lines: Optional[TextIO] = None
        self._shape = (0, 0)
        self._written = 0
        self._last: Optional[np.ndarray] = None
        if self.draw:
            self._refuse_source('video', self._video_path)

    def write(self, frame: Frame, detections: Detections, picture: Optional[np.ndarray]) -> None:
        # first, because a frame of another size is in neither file
        if self.draw:
            self._write_picture(frame, picture)
        if self.save_json:
            if self._lines is None:
                os.makedirs(osp.dirname(self._lines_path), exist_ok=True)
                self._lines = open(self._lines_path, 'w', encoding='utf-8')
            line = dict(frame=frame.index, time=round(frame.time, 6), detections=detections)
            self._lines.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + '\n')
            self._lines.flush()

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        if self._video is not None:
            self._video.release()
            self._video = None
            os.replace(_unfinished(self._video_path), self._video_path)

    def _write_picture(self, frame: Frame, picture: np.ndarray) -> None:
        if self._video is None:
            self._open_video(picture)
        if picture.shape[:2] != self._shape:
            # OpenCV would leave such a frame out without a word
            raise FrameSizeError(
                f'frame {frame.index} of {frame.path!r} has {picture.shape[1]} x '
                f'{picture.shape[0]} pixels, the first one {self._shape[1]} x {self._shape[0]}; a '
                'video has one size: convert the source to one (--no-draw leaves the video out).'
            )
        if self.source.paced and self._last is not None:
            # the time in which the detector saw no new picture of the camera
            for _ in range(round(frame.time * self.source.rate) - self._written):
                self._put(self._last)
        self._put(picture)
        self._last = picture

    def _put(self, picture: np.ndarray) -> None:
        self._video.write(picture)
        self._written += 1

    def _open_video(self, picture: np.ndarray) -> None:
        self._shape = picture.shape[:2]
        self._video = cv2.VideoWriter(
            _unfinished(self._video_path),
            cv2.VideoWriter_fourcc(*'mp4v'),
            self.source.rate,
            (self._shape[1], self._shape[0]),
        )
        if not self._video.isOpened():
            self._video = None
            raise OSError(
                f'video {self._video_path!r} cannot be written: this OpenCV has no mp4 encoder, or '
                'the folder is not writable (--no-draw leaves the video out).'
            )


def open_writer(
    source: FrameSource,
    out_dir: str,
    draw: bool,
    save_json: bool,
    kept: Collection[str] = (),
) -> ResultWriter:
    """Choose the writer of a source.

    Args:
        source (FrameSource): What is looked at.
        out_dir (str): Folder to write to.
        draw (bool): Whether to write pictures or a video.
        save_json (bool): Whether to write JSON.
        kept (Collection[str]): Real paths of the other sources' files, which are not overwritten.

    Returns:
        ResultWriter: A context manager; nothing is written before its first frame.

    Raises:
        OSError: If a drawn picture or video would take the place of a source.
    """
    writer = _StreamWriter if source.is_stream else _ImageWriter
    return writer(source, out_dir, draw, save_json, kept)


def prepare_folder(path: str) -> None:
    """Make a folder and see that it can be written to, before any time is spent.

    Args:
        path (str): The folder.

    Raises:
        OSError: If it cannot be made or written to.
    """
    try:
        os.makedirs(path, exist_ok=True)
        probe = osp.join(path, f'.{os.getpid()}.tmp')
        with open(probe, 'w'):
            pass
        os.unlink(probe)
    except OSError as error:
        raise OSError(
            f'results cannot be written to {path!r} ({error.strerror}): give another folder.'
        ) from error


def _picture_names(names: Sequence[str]) -> Dict[str, str]:
    """The drawn pictures' names by the images' names."""
    taken = set(names)
    pictures = {}
    for name in names:
        picture = name
        # OpenCV writes nothing but grey levels there, and boxes have colours
        if name.lower().endswith('.pgm'):
            picture = f'{name}.png'
            while picture in taken:
                picture += '.png'
        pictures[name] = picture
    return pictures


def _write_picture(path: str, picture: np.ndarray) -> None:
    unfinished = _unfinished(path)
    try:
        if not mmcv.imwrite(picture, unfinished):
            raise OSError(f'picture {path!r} cannot be written.')
    except cv2.error as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(f'picture {path!r} cannot be written ({reason}).') from error
    os.replace(unfinished, path)


def _unfinished(path: str) -> str:
    """Where a file is written before it is whole; its ending tells the format."""
    folder, name = osp.split(path)
    os.makedirs(folder, exist_ok=True)
    return osp.join(folder, f'.unfinished.{name}')
