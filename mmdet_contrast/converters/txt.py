"""Text files with one box a line (``class cx cy w h``) to COCO JSON."""

import math
from pathlib import Path
from typing import FrozenSet, List, Optional, Sequence, Tuple

from mmdet_contrast.utils.files import PathLike

from .coco import (
    ConversionError,
    ConversionReport,
    RawBox,
    RawImage,
    assemble,
    decode_text,
    find_files,
    progress,
    read_split,
    require_folder,
    save,
)
from .pictures import ImageFolder

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
        verify_images (bool): Decode each image to find those that training cannot read, or of which
            it sees nothing; False reads headers only.
        strict (bool): Raise at the first problem instead of reporting it.
        report_json (PathLike, optional): Also write the whole report to this file.

    Returns:
        ConversionReport: Counts, and everything that was not taken as it stood.

    Raises:
        ConversionError: If a folder does not exist; if the numbers are all at most 1, so that they
            cannot be pixels, and ``normalized`` is not set; if the classes are numbers, so that it
            is unknown whether labels are names or indices; if no image is left; or if ``strict``
            and a problem is met.
        FileNotFoundError: If the split file does not exist.

    Examples:
        >>> report = txt_to_coco('labels', 'images', 'train.json', classes=('cat', 'dog'))
        >>> print(report)  # doctest: +SKIP
    """
    folder = require_folder(Path(ann_dir), 'ann_dir')
    report = ConversionReport(out_file=str(out_json or ''), strict=strict)
    pictures = ImageFolder(Path(img_dir or ann_dir), report, missing_annotations, verify_images)
    texts = find_files(folder, ('.txt',), report, 'ambiguous_annotation')
    files = {
        key: folder / name for key, name in texts.items() if Path(name).name not in _CLASS_LISTS
    }
    every = {key: pictures.names.get(key) for key in sorted({*files, *pictures.names})}
    keys = list(every) if split is None else read_split(Path(split), report, every)
    known = frozenset(classes or ())
    read = (_read_image(k, files.get(k), pictures, known) for k in progress(keys, 'reading'))
    images = [image for image in read if image is not None]

    boxes = [box for image in images for box in image.boxes]
    if boxes and not normalized and all(max(map(abs, box.corners)) <= 1 for box in boxes):
        raise ConversionError(
            f'all boxes in {folder} lie between 0 and 1, so they cannot be pixels: pass '
            'normalized=True (--normalized).'
        )
    images = [
        image._replace(boxes=[_corners(b, image, normalized) for b in image.boxes])
        for image in images
    ]
    images, names = _name_classes(images, classes)
    coco = assemble(images, names, report, min_size, clip)
    return save(coco, report, out_json, report_json)


def _read_image(
    key: str,
    file: Optional[Path],
    folder: ImageFolder,
    known: FrozenSet[str],
) -> Optional[RawImage]:
    """Read one image with its boxes as (cx, cy, w, h); None where it cannot be used (reported)."""
    label, report = f'{key}.txt', folder.report
    lines: List[str] = []
    if file is None:
        if not folder.keeps_without_annotation(label, 'text'):
            return None
    else:
        try:
            lines = decode_text(file.read_bytes()).splitlines()
        except (OSError, ValueError) as error:
            report.add('unreadable_annotation', label, str(error), 'image left out')
            return None
    file_name = folder.names.get(key)
    if file_name is None:
        detail = f'{key!r} is no image of the folder'
        report.add('missing_image', label, detail, 'image left out')
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
) -> Tuple[List[RawImage], Sequence[str]]:
    """Put class names in place of indices; return all names in order, too."""
    found = {box.name for image in images for box in image.boxes}
    integers = all(name.isdecimal() for name in found)
    if classes is None:
        return images, sorted(found, key=int if integers else None)
    if not integers or found <= set(classes):
        return images, classes
    if any(name.isdecimal() and name != str(index) for index, name in enumerate(classes)):
        # where all labels of a split are names by chance, they would be taken as such
        raise ConversionError(
            f'the labels {", ".join(sorted(found, key=int))} are not the classes '
            f'{", ".join(classes)}, and may not be their indices: use names that are no numbers.'
        )

    def rename(box: RawBox) -> RawBox:
        index = int(box.name)
        # An index beyond the list stays a number, and is reported as an unknown class.
        return box._replace(name=classes[index]) if index < len(classes) else box

    return [i._replace(boxes=[rename(b) for b in i.boxes]) for i in images], classes
