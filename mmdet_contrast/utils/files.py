"""Files: JSON written as a whole, folders for results, sizes of images."""

import json
import os
import os.path as osp
from pathlib import Path
from typing import Any, Optional, Tuple, Union

from PIL import Image

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


def image_size(path: PathLike, verify: bool) -> Tuple[int, int, int]:
    """Size of an image as the training pipeline will see it.

    Args:
        path (str or PathLike): The image file.
        verify (bool): Decode the whole picture, which finds truncated files; otherwise only the
            header is read.

    Returns:
        Tuple[int, int, int]: Width and height in pixels *after* the camera's EXIF rotation, which
        MMDetection's loader applies, and the EXIF orientation (1 = upright).

    Raises:
        OSError: If the file is missing or not a readable image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if verify:
                image.load()
            # Not image.getexif(): for PNG files that would decode the picture first.
            exif = Image.Image.getexif(image)
            orientation = int(exif.get(_EXIF_ORIENTATION, 1) or 1)
    except OSError:
        raise
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error …
        raise OSError(f'{type(error).__name__}: {error}') from error
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return width, height, orientation


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
