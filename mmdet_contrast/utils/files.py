"""Files: written as a whole, folders for results, pictures."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Iterator, Optional, Union
from uuid import uuid4

import cv2
import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

PathLike = Union[str, 'os.PathLike[str]']

_EXIF_ORIENTATION = 0x0112


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Write a file so that at any moment the old or the whole new file is there.

    Args:
        path (str or PathLike): The file; missing folders are made.

    Yields:
        Path: Where to write it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same folder, because os.replace is atomic within one file system only.
    # A random name, because processes of several machines may write the same file.
    # Not with the file's own, which may be as long as a name can be.
    temporary = path.with_name(f'.{uuid4().hex}.tmp')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


def write_json(path: PathLike, content: Any, indent: Optional[int] = None) -> None:
    """Write a JSON file, whole or not at all.

    Args:
        path (str or PathLike): The file to write; missing folders are made.
        content (Any): JSON-serialisable content.
        indent (int, optional): Spaces of indentation; None writes one line.

    Raises:
        ValueError: If the content holds NaN or infinity, which JSON does not have.
    """
    # file names that are not in UTF-8 are written as JSON escapes them
    with replacing(path) as temporary, open(
        temporary, 'w', encoding='utf-8', errors='backslashreplace'
    ) as stream:
        json.dump(content, stream, indent=indent, allow_nan=False, ensure_ascii=False)


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


def check_image(path: PathLike) -> int:
    """Refuse a picture that is cut off, whose rest OpenCV would fill with grey.

    Args:
        path (str or PathLike): The image file.

    Returns:
        int: The EXIF orientation that MMDetection's loader applies, 1 for an upright picture.

    Raises:
        OSError: If the file is missing or not a whole image.
    """
    orientation, is_tiff = 1, False
    try:
        with _any_size(), Image.open(path) as image:
            is_tiff = image.format == 'TIFF'
            # before the picture: of a TIFF file Pillow forgets them
            with contextlib.suppress(Exception):
                orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            image.load()
    except UnidentifiedImageError:
        # OpenCV knows some formats that Pillow does not, and decides
        load_image(path)
    except OSError:
        raise
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error …
        raise OSError(f'{type(error).__name__}: {error}') from error
    if orientation == 1 or is_tiff:
        # OpenCV turns TIFF files whatever it is told
        return orientation if orientation in range(1, 9) else 1
    # Pillow and OpenCV understand odd EXIF data differently
    stored = load_image(path, 'color_ignore_orientation')
    return 1 if np.array_equal(stored, load_image(path)) else orientation


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit of pixels: OpenCV, which decodes in training, has a higher one."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
