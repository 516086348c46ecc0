"""The pictures of a folder, as training will see them."""

from pathlib import Path
from typing import Optional, Tuple

import numpy as np
from PIL import Image

from mmdet_contrast.utils.files import image_size, load_image

from .coco import IMAGE_SUFFIXES, ConversionReport, find_files, require_folder

# Of 256 grey levels. With fewer a picture is as good as black; with those between the two, training
# can use it, but sees a quarter of what it could.
_TOO_FEW_LEVELS = 32
_FEW_LEVELS = 64
# Pixels of a side that a first look takes, which is enough for most pictures.
_QUICK_SIDE = 50


class ImageFolder:
    """The images below a folder; what cannot be used as it stands is reported.

    Args:
        folder (Path): The folder, searched with its subfolders.
        report (ConversionReport): Findings are added to it.
        missing_annotations (str): What becomes of an image without an annotation file: 'leave_out',
            or 'empty' to keep it as an image without objects.
        verify (bool): Decode each image to find those that training cannot read, or of which it
            sees nothing; False reads headers only.

    Attributes:
        names (Dict[str, str]): Relative path without suffix → relative path (POSIX).

    Raises:
        ConversionError: If there is no such folder.
    """

    def __init__(
        self, folder: Path, report: ConversionReport, missing_annotations: str, verify: bool
    ) -> None:
        self.folder = require_folder(folder, 'img_dir')
        self.report = report
        self.missing_annotations = missing_annotations
        self.verify = verify
        self.names = find_files(folder, IMAGE_SUFFIXES, report, 'ambiguous_image')

    def keeps_without_annotation(self, label: str, kind: str) -> bool:
        """Report that an annotation file is missing, and tell whether its image is kept.

        Args:
            label (str): Name of the file that is not there.
            kind (str): What such a file is called: 'XML', 'text'.
        """
        keep = self.missing_annotations == 'empty'
        action = 'image kept, no boxes' if keep else 'image left out'
        self.report.add('missing_annotation', label, f'there is no such {kind} file', action)
        return keep

    def size(self, file_name: str) -> Optional[Tuple[int, int]]:
        """Return width and height of an image in pixels as training will see it.

        Args:
            file_name (str): Path relative to the folder.

        Returns:
            Optional[Tuple[int, int]]: None where training can make nothing of the image (reported).
        """
        path = self.folder / file_name
        try:
            width, height, orientation = image_size(path, self.verify)
            stated = width, height
            if self.verify:
                picture = load_image(path)
                height, width = picture.shape[:2]
                if not self._shows_content(file_name, picture):
                    return None
        except OSError as error:
            self.report.add('unreadable_image', file_name, str(error), 'image left out')
            return None
        if self.verify and _has_frames(path):
            detail = 'it holds several pictures'
            self.report.add('several_pictures', file_name, detail, 'the first one taken')
        if orientation != 1 or stated != (width, height):
            found = f'EXIF orientation {orientation}'
            if orientation == 1:
                found = f'the file says {stated[0]} x {stated[1]}, training sees {width} x {height}'
            detail = f'{found}: are the boxes drawn on the rotated picture?'
            self.report.add('rotated_image', file_name, detail, 'size after rotation taken')
        return width, height

    def _shows_content(self, file_name: str, picture: np.ndarray) -> bool:
        """Tell whether training sees what the file holds; report where it sees little of it."""
        step = max(1, min(picture.shape[:2]) // _QUICK_SIDE)
        if _contrast(picture[::step, ::step], odd=1) >= _FEW_LEVELS:
            return True
        shown = _contrast(picture)
        if shown >= _FEW_LEVELS:
            return True
        stored = load_image(self.folder / file_name, 'unchanged')
        usable = shown >= _TOO_FEW_LEVELS
        if _contrast(stored) <= shown or usable and stored.dtype == np.uint8:
            return True
        detail = (
            'the picture is in the alpha channel, which training does not read'
            if stored.dtype == np.uint8
            else f'of its {stored.dtype} values, training sees {int(shown) + 1} of 256 grey levels:'
            ' scale them to 8 bits'
        )
        action = 'image kept' if usable else 'image left out'
        self.report.add('content_lost', file_name, detail, action)
        return usable


def _contrast(picture: np.ndarray, odd: float = 0.01) -> float:
    """Range of values in the channel where it is widest, without a percentage of odd pixels."""
    pixels = picture.reshape(picture.shape[0] * picture.shape[1], -1)
    low, high = np.percentile(pixels, (odd, 100 - odd), axis=0)
    # The objects may be so small that they are among the odd pixels.
    return float(max(high - low) or max(np.ptp(pixels, axis=0)))


def _has_frames(path: Path) -> bool:
    """Tell whether a file holds several pictures, other than smaller versions of its first."""
    try:
        with Image.open(path) as image:
            # The second picture of a telephone's JPEG belongs to the first.
            if image.format == 'MPO' or getattr(image, 'n_frames', 1) == 1:
                return False
            size = image.size
            image.seek(1)
            return image.size == size
    except Exception:  # Pillow cannot read every file that OpenCV reads
        return False
