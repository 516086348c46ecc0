"""How the converters read: the images of a folder, one after the other, with a report."""

import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from mmengine.utils import track_iter_progress

from ._coco import PathLike, RawImage, image_size, index_images, write_json
from .report import ConversionReport

MISSING_ANNOTATIONS = ('leave_out', 'empty')


class ImageFolder:
    """The images below a folder; what cannot be used as it stands is reported.

    Args:
        folder (Path): The folder, searched with its subfolders.
        report (ConversionReport): Findings are added to it.
        missing_annotations (str): What becomes of an image without an annotation file, one of
            ``MISSING_ANNOTATIONS``.
        verify (bool): Decode each image to find damaged ones; False reads headers only.

    Attributes:
        names (Dict[str, str]): Relative path without suffix → relative path (POSIX).
    """

    def __init__(
        self, folder: Path, report: ConversionReport, missing_annotations: str, verify: bool
    ) -> None:
        self.folder = folder
        self.report = report
        self.missing_annotations = missing_annotations
        self.verify = verify
        self.names: Dict[str, str]
        self.names, ambiguous = index_images(folder)
        for names in ambiguous.values():
            others = f'also {", ".join(names[1:])}'
            report.add('ambiguous_image', names[0], others, 'first one taken')

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
        """Width and height of an image in pixels as training will see it.

        Args:
            file_name (str): Path relative to the folder.

        Returns:
            Optional[Tuple[int, int]]: None where the image is not readable (reported).
        """
        try:
            width, height, orientation = image_size(self.folder / file_name, self.verify)
        except OSError as error:
            self.report.add('unreadable_image', file_name, str(error), 'image left out')
            return None
        if orientation != 1:
            detail = f'EXIF orientation {orientation}: are the boxes drawn on the rotated picture?'
            self.report.add('rotated_image', file_name, detail, 'size after rotation taken')
        return width, height


def read_images(
    keys: Sequence[str], read: Callable[[str], Optional[RawImage]], progress: bool
) -> List[RawImage]:
    """Read images one after the other, without those that cannot be used.

    Args:
        keys (Sequence[str]): Image names.
        read (Callable[[str], Optional[RawImage]]): Reads one; None where it cannot be used.
        progress (bool): Show a progress bar.
    """
    shown = progress and len(keys) > 0
    # MMEngine's default is the stdout of the moment it was imported, which may be closed by now.
    bar = track_iter_progress(keys, file=sys.stdout) if shown else keys
    images = [read(key) for key in bar]
    if shown:
        print()
    return [image for image in images if image is not None]


def save(
    coco: Dict[str, Any],
    report: ConversionReport,
    out_json: Optional[PathLike],
    report_json: Optional[PathLike],
) -> ConversionReport:
    """Write the COCO file and the report, each where a path is given, and return the report."""
    if out_json is not None:
        write_json(out_json, coco)
    if report_json is not None:
        report.save(report_json)
    return report
