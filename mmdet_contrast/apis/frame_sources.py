"""Where the pictures of an inference come from: image files, videos, cameras."""

import itertools
import os
import os.path as osp
import time
from typing import Callable, Generator, List, NamedTuple, Optional, Sequence, Union

import cv2
import numpy as np
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

from mmdet_contrast.utils.config import LaunchError

Load = Callable[[str], np.ndarray]

_VIDEO_EXTENSIONS = tuple('.avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .webm .wmv'.split())
# These hold a table of their frames; of the others OpenCV announces an estimate.
_COUNTED = ('.avi', '.m4v', '.mov', '.mp4')
_DEFAULT_RATE = 30.0
# Some containers round the number of frames that they announce.
_COMPLETE = 0.99


class Frame(NamedTuple):
    """A picture of a source.

    Attributes:
        image (ndarray): (H, W, 3) uint8 BGR; of an image file, what the test pipeline loads.
        name (str): Path of an image below the folder of all sources, or the stream's name.
        path (str): File, or ``'camera 0'``.
        number (int): Number in the stream, from 0; of an image 0.
        time (float): Seconds since the stream began; of an image 0.
    """

    image: np.ndarray
    name: str
    path: str
    number: int
    time: float


class ImageFiles:
    """Some image files.

    Args:
        root (str): Common folder; an image is named by its path below it.
        files (Sequence[str]): The files.
    """

    name = 'images'

    def __init__(self, root: str, files: Sequence[str]) -> None:
        self.root = root
        self.files = list(files)
        self.total: Optional[int] = len(self.files)
        self.failures: List[str] = []

    def frames(self, load: Load) -> Generator[Frame, None, None]:
        """Read the images in order.

        Args:
            load (Callable): Reads an image file.

        Yields:
            Frame: The next image that can be read; the others are in ``failures``.
        """
        for path in self.files:
            try:
                image = load(path)
            except (OSError, AssertionError, cv2.error) as error:
                self.failures.append(f'{path}: not a readable image ({error})')
            else:
                yield Frame(image, osp.relpath(path, self.root), path, 0, 0.0)


class VideoStream:
    """A video file or a camera.

    Args:
        name (str): Name of the results.
        target (str | int): File, or the number of a camera.
        max_frames (int, optional): Most frames to read.

    Attributes:
        live (bool): Whether it is a camera.
        rate (float): Frames per second.
        total (int, optional): Number of frames to come, where it is known.
        failures (list[str]): What could not be read so far.
    """

    def __init__(self, name: str, target: Union[str, int], max_frames: Optional[int]) -> None:
        self.name = name
        self.live = isinstance(target, int)
        self.path = f'camera {target}' if self.live else str(target)
        self.files = [] if self.live else [self.path]
        self.rate = _DEFAULT_RATE
        self.total = max_frames
        self.failures: List[str] = []
        self._target = target
        self._max_frames = max_frames
        self._announced = 0
        self._capture: Optional[cv2.VideoCapture] = None

    def open(self) -> None:
        """Open the stream and read its rate and length, unless it is open.

        Raises:
            LaunchError: If OpenCV cannot open it.
        """
        if self._capture is not None:
            return
        capture = cv2.VideoCapture(self._target)
        if not capture.isOpened():
            raise LaunchError(
                f'{self.path!r} does not open as a video or camera: give a video that OpenCV '
                'decodes, or a camera that is connected, free and readable for this user.'
            )
        self._capture = capture
        rate = capture.get(cv2.CAP_PROP_FPS)
        if 0 < rate < 1000:
            self.rate = rate
            # an announced number of frames may come from the rate, and is no better
            self._announced = 0 if self.live else max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        if self.live:
            # the newest picture, not one that waited while the detector was busy
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        counts = [count for count in (self._announced, self._max_frames) if count]
        self.total = min(counts, default=None)

    def frames(self, load: Optional[Load] = None) -> Generator[Frame, None, None]:
        """Read the frames in order, and close the stream at the end.

        Args:
            load (Callable, optional): Not needed.

        Yields:
            Frame: The next frame that can be decoded; the others are in ``failures``.
        """
        self.open()
        start = None
        try:
            for number in itertools.islice(itertools.count(), self._max_frames):
                if not self._capture.grab():
                    self._note_end(number)
                    return
                decoded, image = self._capture.retrieve()
                if not decoded:
                    self.failures.append(f'{self.path}: frame {number} cannot be decoded')
                    continue
                now = time.monotonic()
                start = now if start is None else start
                seconds = now - start if self.live else number / self.rate
                yield Frame(image, self.name, self.path, number, seconds)
        finally:
            self.close()

    def close(self) -> None:
        """Close the stream, if it is open."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _note_end(self, count: int) -> None:
        counted = self.path.lower().endswith(_COUNTED)
        if count == 0 or (counted and count < int(_COMPLETE * self._announced)):
            self.failures.append(
                f'{self.path}: ends after {count} of {self._announced or "?"} frames, so it is '
                'damaged or cut off'
            )


FrameSource = Union[ImageFiles, VideoStream]


def find_sources(
    given: Sequence[Union[str, int, 'os.PathLike[str]']], max_frames: Optional[int] = None
) -> List[FrameSource]:
    """Find what is meant by paths and numbers.

    Args:
        given (Sequence[str | int | PathLike]): Image files, video files, folders (their images and
            videos, not those of folders below), or numbers of cameras.
        max_frames (int, optional): Most frames to read of a video or camera.

    Returns:
        list[FrameSource]: All images as one source, then one for each video and camera. Cameras are
        open, and videos that were named have been tried.

    Raises:
        LaunchError: If a path does not exist, a folder holds nothing to look at, or a video or
            camera that was named does not open.

    Example:
        >>> images, video = find_sources(['photos', 'clip.mp4'])
    """
    cameras, named, found = [], [], []
    for item in map(str, given):
        if item.isdigit() and not osp.exists(item):
            cameras.append(int(item))
        elif osp.isdir(item):
            found += _files_of(item)
        elif osp.isfile(item):
            found.append(item)
            named.append(item)
        else:
            raise LaunchError(
                f'source {item!r} does not exist (looked in {os.getcwd()}): give an image, a '
                'folder, a video or the number of a camera.'
            )
    found = list(dict.fromkeys(found))
    root = osp.commonpath([osp.dirname(osp.abspath(path)) for path in found]) if found else ''
    images = [path for path in found if path.lower().endswith(IMG_EXTENSIONS)]
    videos = [path for path in found if not path.lower().endswith(IMG_EXTENSIONS)]
    streams = [VideoStream(osp.relpath(path, root), path, max_frames) for path in videos]
    now = time.strftime('%Y%m%d_%H%M%S')
    streams += [VideoStream(f'camera{n}_{now}', n, max_frames) for n in dict.fromkeys(cameras)]
    for stream in streams:
        if stream.live or stream.path in named:
            stream.open()
        if not stream.live:
            # hundreds of them would be too many open files
            stream.close()
    return [*([ImageFiles(root, images)] if images else []), *streams]


def _files_of(folder: str) -> List[str]:
    paths = [osp.join(folder, name) for name in sorted(os.listdir(folder)) if name[0] != '.']
    kinds = (*IMG_EXTENSIONS, *_VIDEO_EXTENSIONS)
    # a link to a file that is gone is an image that cannot be read
    files = [path for path in paths if path.lower().endswith(kinds) and not osp.isdir(path)]
    if not files:
        raise LaunchError(f'folder {folder!r} itself holds no image and no video: give another.')
    return files
