"""Where the pictures of an inference come from: image files, videos, cameras."""

import glob
import math
import os
import os.path as osp
import time
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import mmcv
import numpy as np
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

__all__ = ['Frame', 'FrameSource', 'find_sources']

VIDEO_EXTENSIONS = (
    '.avi',
    '.flv',
    '.m4v',
    '.mkv',
    '.mov',
    '.mp4',
    '.mpeg',
    '.mpg',
    '.webm',
    '.wmv',
)
# These have a table of their frames. In the others FFmpeg knows no number of frames, and OpenCV
# announces duration times rate, which is too much where the rate varies.
_COUNTED = ('.avi', '.m4v', '.mov', '.mp4')
_FRAME_RATE = 30.0  # of a camera or a video that names none
# Some containers round the number of frames that they announce.
_ANNOUNCED = 0.99


class Frame(NamedTuple):
    """A picture of a source.

    Attributes:
        image (ndarray): (H, W, 3) BGR; of an image, what the test pipeline's loader gives, which
            is (H, W) where it reads grey levels.
        name (str): Path below the folder that was given, or the stream's name.
        path (str): File, or ``'camera 0'``.
        index (int): Number in the stream, from 0; of an image 0.
        time (float): Seconds since the stream began; of an image 0.
    """

    image: np.ndarray
    name: str
    path: str
    index: int
    time: float


class FrameSource:
    """Some image files, or one video or camera; :func:`find_sources` makes them.

    Attributes:
        name (str): Path below the folder that was given, or the camera's name; it names results.
        path (str): File or ``'camera 0'``; of a set of images their common folder.
        is_stream (bool): Whether the frames follow each other in time.
        paced (bool): Whether the time between frames is real time, as a camera's.
        total (int, optional): Number of frames to come, where it is known.
        rate (float): Frames in a second of those that are given, 0 for images.
        failures (list[str]): What could not be read so far, a sentence each.
        files (list[str]): The files that are read; none of a camera.
    """

    is_stream = False
    paced = False

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.total: Optional[int] = None
        self.rate = 0.0
        self.failures: List[str] = []
        self.files: List[str] = []

    def open(self) -> None:
        """Open the source, so that what is wrong with it is known early.

        Raises:
            OSError: If it cannot be opened.
        """

    def frames(self, load: Callable[[str], np.ndarray]) -> Iterator[Frame]:
        """Read the frames one after the other.

        Args:
            load (Callable): Reads an image file; raises OSError where it is damaged.

        Yields:
            Frame: The next frame that can be read.
        """
        raise NotImplementedError


class _Images(FrameSource):
    """Image files."""

    def __init__(self, root: str, paths: Sequence[str]) -> None:
        super().__init__('', root)
        self.files = list(paths)
        self.total = len(paths)

    def frames(self, load: Callable[[str], np.ndarray]) -> Iterator[Frame]:
        for path in self.files:
            try:
                image = load(path)
            except OSError as error:
                self.failures.append(f'{path}: not a readable image ({error})')
                continue
            yield Frame(image, osp.relpath(path, self.path), path, 0, 0.0)


class _Capture(FrameSource):
    """A video file or a camera."""

    is_stream = True

    def __init__(self, name: str, target, every: int, max_frames: Optional[int]) -> None:
        self.paced = isinstance(target, int)
        super().__init__(name, f'camera {target}' if self.paced else target)
        self.files = [] if self.paced else [target]
        self._target = target
        self._every = every
        self._most = max_frames
        self._announced = 0
        self._reached = self._longest = 0.0  # seconds: the last frame's time, the widest gap
        self._capture = None

    def open(self) -> None:
        if self._capture is not None:
            return
        if self.paced:
            capture = cv2.VideoCapture(self._target)
            # the newest picture, not one that waited while the detector was busy
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        else:
            capture = mmcv.VideoReader(self._target).vcap
        if not capture.isOpened():
            capture.release()
            if self.paced:
                raise OSError(
                    f'camera {self._target} does not open: is it connected, free, and may this '
                    'user read it (on Linux /dev/video*)?'
                )
            raise OSError(
                f'{self._target!r} is neither an image ({", ".join(IMG_EXTENSIONS)}) nor a video '
                'that OpenCV can decode: convert it to mp4 (H.264), or get it again if it is '
                'damaged.'
            )
        self._capture = capture
        self._reached = self._longest = 0.0
        rate = capture.get(cv2.CAP_PROP_FPS)
        believable = 0 < rate < 1000
        self.rate = (rate if believable else _FRAME_RATE) / self._every
        # a number of frames that comes from the rate is no better than the rate
        counts = believable and not self.paced
        announced = capture.get(cv2.CAP_PROP_FRAME_COUNT) if counts else 0
        if announced > 0:
            self._announced = int(announced)
            self.total = math.ceil(self._announced / self._every)
        if self._most is not None:
            self.total = min(self._most, self.total or self._most)

    def frames(self, load: Callable[[str], np.ndarray]) -> Iterator[Frame]:
        self.open()
        given, index, start = 0, -1, None
        try:
            while self._most is None or given < self._most:
                if not self._capture.grab():
                    self._note_end(index + 1)
                    return
                index += 1
                self._note_time()
                if index % self._every:
                    continue
                readable, image = self._capture.retrieve()
                if not readable or image is None:
                    self.failures.append(f'{self.path}: frame {index} cannot be decoded')
                    continue
                now = time.monotonic()
                start = now if start is None else start
                seconds = now - start if self.paced else index / (self.rate * self._every)
                given += 1
                yield Frame(image, self.name, self.path, index, seconds)
        finally:
            self._capture.release()
            self._capture = None

    def _note_time(self) -> None:
        if self.paced:
            return
        # 0 where a frame has no time of its own, as the last one of an MPEG
        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if seconds > self._reached:
            # a track of pictures may begin later than the sound, which says nothing of its rate
            if self._reached:
                self._longest = max(self._longest, seconds - self._reached)
            self._reached = seconds

    def _note_end(self, count: int) -> None:
        if count == 0:
            self.failures.append(f'{self.path}: it opens, but gives no picture')
            return
        if count >= int(_ANNOUNCED * self._announced):
            return
        reached = f'{count} of {self._announced} frames'
        if self._reached and not _is(self.path, _COUNTED):
            rate = self.rate * self._every
            end = self._announced / rate
            # The last frame may stay as long as any before it, and the sound goes on a moment.
            if self._reached + max(self._longest, 1 / rate) + min(1.0, 0.05 * end) >= end:
                return
            reached = f'{self._reached:.1f} of {end:.1f} seconds'
        self.failures.append(f'{self.path}: it ends after {reached}, so it is damaged or cut off')


def find_sources(
    given: Sequence[Union[str, int, 'os.PathLike[str]']],
    recursive: bool = False,
    every: int = 1,
    max_frames: Optional[int] = None,
) -> List[FrameSource]:
    """Find what is meant by paths, patterns and numbers.

    Args:
        given (Sequence[str | int | PathLike]): Image files, video files, folders (their images and
            videos), patterns such as ``'run*/**/*.jpg'``, or numbers of cameras.
        recursive (bool): Whether folders include those below them. Defaults to False.
        every (int): Of videos and cameras, take every n-th frame. Defaults to 1.
        max_frames (int, optional): Most frames to take of a video or camera.

    Returns:
        list[FrameSource]: All images as one source, then a source for each video and camera. What
        was named itself is open already; what a folder or a pattern brought up is not.

    Raises:
        ValueError: If ``every`` or ``max_frames`` is below 1, or nothing is given.
        OSError: If a file or folder does not exist or holds nothing to look at, or if a video or
            camera that was named does not open.

    Example:
        >>> images, video = find_sources(['photos', 'clip.mp4'], recursive=True)
    """
    for name, value in (('every', every), ('max_frames', max_frames)):
        if value is not None and value < 1:
            raise ValueError(f'{name} is {value}, but must be at least 1.')
    if not given:
        raise ValueError('no source given: name an image, a folder, a video or a camera.')
    cameras, named, roots, found = [], [], [], []
    for item in given:
        text = os.fspath(item) if isinstance(item, os.PathLike) else str(item)
        if text.isdigit() and not osp.exists(text):
            cameras.append(int(text))
            continue
        folder, files = _expand(text, recursive)
        roots += [folder] if folder else [osp.dirname(osp.abspath(file)) for file in files]
        found += files
        if not folder and files == [text]:
            named.append(text)
    found = list(dict.fromkeys(found))
    root = osp.commonpath([osp.abspath(folder) for folder in roots]) if roots else ''
    images = [path for path in found if _is(path, IMG_EXTENSIONS)]
    sources: List[FrameSource] = [_Images(root, images)] if images else []
    captures = [
        (osp.relpath(path, root), path) for path in found if not _is(path, IMG_EXTENSIONS)
    ] + [(f'camera{number}_{time.strftime("%Y%m%d_%H%M%S")}', number) for number in cameras]
    for name, target in captures:
        source = _Capture(name, target, every, max_frames)
        if target in named or target in cameras:
            source.open()
        sources.append(source)
    return sources


def _is(path: str, extensions: Tuple[str, ...]) -> bool:
    return path.lower().endswith(extensions)


def _expand(text: str, recursive: bool) -> Tuple[Optional[str], List[str]]:
    """The folder, if it is one, and the files."""
    kinds = (*IMG_EXTENSIONS, *VIDEO_EXTENSIONS)
    if osp.isfile(text):
        return None, [text]
    if osp.isdir(text):
        below = ('**', '*') if recursive else ('*',)
        files = glob.glob(osp.join(glob.escape(text), *below), recursive=recursive)
        files = sorted(path for path in files if osp.isfile(path) and _is(path, kinds))
        if not files:
            deeper = not recursive and any(entry.is_dir() for entry in os.scandir(text))
            raise FileNotFoundError(
                f'folder {text!r} holds no image ({", ".join(IMG_EXTENSIONS)}) and no video'
                + (': look into the folders below it, too (--recursive).' if deeper else '.')
            )
        return text, files
    files = [path for path in glob.glob(text, recursive=True) if osp.isfile(path)]
    if not files:
        if glob.has_magic(text):
            raise FileNotFoundError(f'no file matches the pattern {text!r} (in {os.getcwd()}).')
        raise FileNotFoundError(
            f'{text!r} does not exist (looked in {os.getcwd()}): give an image, a folder, a '
            'pattern, a video or the number of a camera.'
        )
    chosen = sorted(path for path in files if _is(path, kinds))
    if not chosen:
        raise FileNotFoundError(
            f'the pattern {text!r} matches {len(files)} files, none of them an image or a video.'
        )
    return None, chosen
