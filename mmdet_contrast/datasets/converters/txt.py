"""Text files with one box a line (``class cx cy w h``) to COCO JSON."""

import math
from pathlib import Path
from typing import FrozenSet, List, Optional, Sequence, Tuple

from ._coco import (
    IMAGE_SUFFIXES,
    PathLike,
    RawBox,
    RawImage,
    assemble,
    check_options,
    read_split,
    resolve_classes,
    unique_names,
)
from ._reading import MISSING_ANNOTATIONS, ImageFolder, read_images, save
from .report import ConversionReport

__all__ = ['txt_to_coco']

# What annotation tools leave beside the annotations.
_CLASS_LISTS = ('classes.txt',)


def txt_to_coco(
    ann_dir: PathLike,
    img_dir: Optional[PathLike] = None,
    out_json: Optional[PathLike] = None,
    classes: Optional[Sequence[str]] = None,
    split: Optional[PathLike] = None,
    normalized: bool = False,
    min_size: float = 0,
    clip: bool = True,
    missing_annotations: str = 'leave_out',
    verify_images: bool = True,
    strict: bool = False,
    progress: bool = True,
    report_json: Optional[PathLike] = None,
) -> ConversionReport:
    """Convert text annotations, one ``.txt`` file an image, to one COCO JSON file.

    A line is ``class cx cy w h``: centre and size of a box, separated by blanks or commas; empty
    lines and lines that begin with ``#`` are passed over. An empty file is an image without
    objects, which is kept. Nothing is dropped silently: whatever is changed or left out is in the
    returned report with the name of its file. Ids count from 1 in the order of the file names.

    Args:
        ann_dir (PathLike): Folder of the text files, searched with its subfolders.
        img_dir (PathLike, optional): Folder of the images, named as the text files; ``file_name``
            is relative to it. By default ``ann_dir``.
        out_json (PathLike, optional): The COCO file to write, atomically. None only checks.
        classes (Sequence[str], optional): Class names in the order of their category ids. The files
            may use these names, or, if they hold nothing but integers, indices into them from 0.
            None takes what is found, sorted (integers by value).
        split (PathLike, optional): A text file with one image name a line. None takes every file.
        normalized (bool): The numbers are shares of the image's width and height (the YOLO format)
            instead of pixels.
        min_size (float): Boxes with a side below this many pixels get ``iscrowd=1``: MMDetection
            neither trains on them nor counts them as errors.
        clip (bool): Clip boxes that leave the picture (reported).
        missing_annotations (str): What becomes of an image without a text file: 'leave_out', or
            'empty' to keep it as an image without objects. Reported in both cases.
        verify_images (bool): Decode each image to find damaged ones; False reads headers only.
        strict (bool): Raise at the first problem instead of reporting it.
        progress (bool): Show a progress bar.
        report_json (PathLike, optional): Also write the whole report to this file.

    Returns:
        ConversionReport: Counts, and everything that was not taken as it stood.

    Raises:
        FileNotFoundError: If a folder or the split file does not exist.
        ValueError: If an option has no such value, or the numbers are all at most 1, so that they
            cannot be pixels, and ``normalized`` is not set.
        ConversionError: If ``strict`` and a problem is met.

    Examples:
        >>> report = txt_to_coco('labels', 'images', 'train.json', classes=('cat', 'dog'))
        >>> print(report)  # doctest: +SKIP
    """
    check_options(min_size, missing_annotations=(missing_annotations, MISSING_ANNOTATIONS))
    if classes is not None:
        resolve_classes(classes, ())
    folder = Path(ann_dir)
    images_folder = folder if img_dir is None else Path(img_dir)
    for name, path in (('ann_dir', folder), ('img_dir', images_folder)):
        if not path.is_dir():
            raise FileNotFoundError(f'{name} {path} is not a folder; pass the folder of the files.')
    report = ConversionReport(out_file=str(out_json or ''), strict=strict)
    listed = None
    if split is not None:
        if not Path(split).is_file():
            raise FileNotFoundError(f'split file {split} does not exist.')
        names = [_without_image_suffix(name) for name in read_split(Path(split))]
        listed = unique_names(names, report, Path(split).name)
    files = {
        path.relative_to(folder).with_suffix('').as_posix(): path
        for path in sorted(folder.rglob('*.txt'))
        if path.name not in _CLASS_LISTS
    }
    pictures = ImageFolder(images_folder, report, missing_annotations, verify_images)
    keys = sorted(set(files) | set(pictures.names)) if listed is None else listed
    known = frozenset(classes or ())
    images = read_images(
        keys, lambda key: _read_image(key, files.get(key), pictures, known), progress
    )

    boxes = [box for image in images for box in image.boxes]
    if boxes and not normalized and all(max(map(abs, box.corners)) <= 1 for box in boxes):
        raise ValueError(
            f'all {len(boxes)} boxes in {folder} lie between 0 and 1, so they cannot be pixels; '
            'pass normalized=True (--normalized).'
        )
    images = [
        image._replace(boxes=[_corners(b, image, normalized) for b in image.boxes])
        for image in images
    ]
    images, names = _name_classes(images, classes)
    coco = assemble(images, names, report, min_size, clip)
    return save(coco, report, out_json, report_json)


def _without_image_suffix(name: str) -> str:
    path = Path(name)
    return (
        path.with_suffix('').as_posix()
        if path.suffix.lower() in (*IMAGE_SUFFIXES, '.txt')
        else name
    )


def _read_image(
    key: str,
    file: Optional[Path],
    folder: ImageFolder,
    known: FrozenSet[str],
) -> Optional[RawImage]:
    """One image with its boxes as (cx, cy, w, h), or None where it cannot be used (reported)."""
    label, report = f'{key}.txt', folder.report
    lines: List[str] = []
    if file is None:
        if not folder.keeps_without_annotation(label, 'text'):
            return None
    else:
        try:
            lines = file.read_text(encoding='utf-8-sig').splitlines()
        except (OSError, UnicodeDecodeError) as error:
            report.add('unreadable_annotation', label, str(error), 'image left out')
            return None
    file_name = folder.names.get(key)
    if file_name is None:
        report.add('missing_image', label, f'no image {key!r} in the folder', 'image left out')
        return None
    picture = folder.size(file_name)
    if picture is None:
        return None
    boxes = []
    for number, line in enumerate(lines, start=1):
        box = _read_line(line, number, label, report, known)
        if box is not None:
            boxes.append(box)
    return RawImage(file_name, *picture, boxes, label)


def _read_line(
    line: str, number: int, label: str, report: ConversionReport, known: FrozenSet[str]
) -> Optional[RawBox]:
    tokens = line.replace(',', ' ').split()
    if not tokens or tokens[0].startswith('#'):
        return None
    name = ' '.join(tokens[:-4])
    if len(tokens) != 5 and name not in known:
        detail = f'line {number} is {line.strip()!r}, expected class cx cy w h'
        report.add('malformed_line', label, detail, 'left out')
        return None
    try:
        cx, cy, w, h = (float(token) for token in tokens[-4:])
    except ValueError:
        cx = math.nan
    if not (math.isfinite(cx) and all(map(math.isfinite, (cy, w, h)))):
        report.add('malformed_number', label, f'line {number} is {line.strip()!r}', 'left out')
        return None
    return RawBox(name, (cx, cy, w, h))


def _corners(box: RawBox, image: RawImage, normalized: bool) -> RawBox:
    cx, cy, w, h = box.corners
    if normalized:
        cx, w = cx * image.width, w * image.width
        cy, h = cy * image.height, h * image.height
    return box._replace(corners=(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))


def _name_classes(
    images: List[RawImage], classes: Optional[Sequence[str]]
) -> Tuple[List[RawImage], List[str]]:
    """Class names in place of indices, and all names in order."""
    found = {box.name for image in images for box in image.boxes}
    integers = all(name.isdecimal() for name in found)
    if classes is None:
        return images, resolve_classes(None, images, key=int if integers else None)
    names = resolve_classes(classes, images)
    if not found or not integers or found <= set(names):
        return images, names

    def rename(box: RawBox) -> RawBox:
        index = int(box.name)
        # An index beyond the list stays a number, and is reported as an unknown class.
        return box._replace(name=names[index]) if index < len(names) else box

    return [i._replace(boxes=[rename(b) for b in i.boxes]) for i in images], names
