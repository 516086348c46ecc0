"""Files: JSON written as a whole, folders for results, sizes of images."""

import contextlib
import json
import os
import os.path as osp
from pathlib import Path
from typing import Any, Iterator, Optional, Tuple, Union

import cv2
import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

PathLike = Union[str, 'os.PathLike[str]']

_EXIF_ORIENTATION = 0x0112


def write_json(path: PathLike, content: Any, indent: Optional[int] = None) -> None:
    """Write a JSON file so that at any moment the old or the whole new file is there.

    Args:
        path (str or PathLike): The file to write; missing folders are made.
        content (Any): JSON-serialisable content.
        indent (int, optional): Spaces of indentation; None writes one line.

    Raises:
        ValueError: If the content holds NaN or infinity, which JSON does not have.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same folder, because os.replace is atomic within one file system only.
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'w', encoding='utf-8') as stream:
            json.dump(content, stream, indent=indent, allow_nan=False, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


def load_image(path: PathLike, flag: str = 'color') -> np.ndarray:
    """Decode an image as MMDetection's ``LoadImageFromFile`` does by default.

    Args:
        path (str or PathLike): The image file.
        flag (str): What to decode, as ``mmcv.imread`` names it.

    Returns:
        ndarray: (H, W, 3) uint8 BGR, turned as the EXIF data say; other flags give other arrays.

    Raises:
        OSError: If the file is missing, or OpenCV cannot decode it.
    """
    try:
        image = mmcv.imread(os.fspath(path), flag=flag, backend='cv2')
    except cv2.error as error:
        raise OSError(f'OpenCV cannot decode it: {error.err or error}') from error
    if image is None:
        raise OSError('OpenCV, which decodes the images in training, cannot decode it')
    return image


def image_size(path: PathLike, verify: bool) -> Tuple[int, int, int]:
    """Size of an image as the training pipeline will see it.

    Args:
        path (str or PathLike): The image file.
        verify (bool): Decode the whole picture, which finds truncated files; otherwise only the
            header is read.

    Returns:
        Tuple[int, int, int]: Width and height in pixels *after* the camera's EXIF rotation, which
        MMDetection's loader applies, and the EXIF orientation that it applied (1 = upright).

    Raises:
        OSError: If the file is missing or not a readable image.
    """
    try:
        with _any_size(), Image.open(path) as image:
            width, height = image.size
            is_tiff = image.format == 'TIFF'
            # A PNG file may have its EXIF data at the end; of a TIFF file Pillow forgets them.
            if verify and not is_tiff:
                image.load()
            orientation = _stated_orientation(image)
            if verify and is_tiff:
                image.load()
    except UnidentifiedImageError:
        # OpenCV knows some formats that Pillow does not, and decides.
        height, width = load_image(path).shape[:2]
        return width, height, 1
    except OSError:
        raise
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error …
        raise OSError(f'{type(error).__name__}: {error}') from error
    if orientation in (0, 1):
        return width, height, 1
    # Pillow and OpenCV understand odd EXIF data differently, so OpenCV is asked.
    picture = load_image(path)
    height, width = picture.shape[:2]
    if is_tiff:
        # OpenCV turns these whatever it is told.
        return width, height, orientation if orientation in range(1, 9) else 1
    stored = load_image(path, 'color_ignore_orientation')
    # The stated one first: a symmetric picture looks the same in several.
    for number in sorted(range(1, 9), key=lambda number: number != orientation):
        if np.array_equal(_turn(stored, number), picture):
            return width, height, number
    return width, height, 1


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit of pixels: OpenCV, which decodes in training, has a higher one."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _stated_orientation(image: Image.Image) -> Any:
    """Return what stands in the EXIF data, which may be no number; None if they are damaged."""
    try:
        # Not image.getexif(): for PNG files that would decode the picture first.
        return Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    except Exception:  # as above
        return None


def _turn(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror a picture as an EXIF orientation from 1 to 8 demands."""
    if orientation > 4:
        picture, orientation = picture.swapaxes(0, 1), orientation - 4
    return picture[:: -1 if orientation in (3, 4) else 1, :: -1 if orientation in (2, 3) else 1]


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
