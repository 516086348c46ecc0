"""Images within tar files, as a storage of MMEngine."""

import posixpath
from typing import Any

from mmengine.fileio import BaseStorageBackend, register_backend

_PREFIX = 'shard'


def image_address(shard: str, offset: int, size: int, name: str) -> str:
    """Write where an image lies as an ``img_path`` that ``LoadImageFromFile`` can read.

    Args:
        shard (str): Path of the tar file.
        offset (int): Where the image begins in it, in bytes.
        size (int): Length of the image in bytes.
        name (str): Name of the image, of which the last part is kept.

    Returns:
        str: For example ``shard://coco/00003.tar/1536-90112/000000000139.jpg``.
    """
    return f'{_PREFIX}://{shard}/{offset}-{size}/{posixpath.basename(name)}'


def read_part(shard: str, offset: int, size: int) -> bytes:
    """Read a part of a tar file; the file is open for this long only, so that processes can fork.

    Args:
        shard (str): Path of the tar file.
        offset (int): Where the part begins, in bytes.
        size (int): Its length in bytes.

    Returns:
        bytes: The part.
    """
    with open(shard, 'rb') as file:
        file.seek(offset)
        return file.read(size)


@register_backend('shard', force=True, prefixes=_PREFIX)
class ShardBackend(BaseStorageBackend):
    """Reads what :func:`image_address` names; MMEngine finds it by the beginning of the path."""

    def get(self, filepath: Any) -> bytes:
        """Read an image.

        Args:
            filepath (str): Its address.

        Returns:
            bytes: The image file, as it was before it was put into the tar file.
        """
        shard, span, _ = str(filepath).split('://', 1)[1].rsplit('/', 2)
        offset, size = map(int, span.split('-'))
        return read_part(shard, offset, size)

    def get_text(self, filepath: Any, encoding: str = 'utf-8') -> str:
        """Read a part that is text.

        Args:
            filepath (str): Its address.
            encoding (str): Of the text.

        Returns:
            str: The text.
        """
        return self.get(filepath).decode(encoding)
