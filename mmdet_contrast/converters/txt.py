"""Text files with one box a line (``class cx cy w h``) to COCO JSON."""

from pathlib import Path
from typing import Collection, List, Optional, Sequence, Tuple

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike

from .coco import ConversionReport, RawBox, RawImage, write_coco
from .pictures import Annotation, read_images


def txt_to_coco(
    ann_dir: PathLike,
    img_dir: PathLike,
    out_json: PathLike,
    classes: Optional[Sequence[str]] = None,
    split: Optional[PathLike] = None,
    normalized: bool = False,
    min_size: float = 0,
    missing_annotations: str = 'leave_out',
    strict: bool = False,
) -> ConversionReport:
    """Convert text annotations, one ``.txt`` file an image, to one COCO JSON file.

    A line is ``class cx cy w h``: centre and size of a box, separated by blanks or commas; empty
    lines and lines that begin with ``#`` are passed over. An empty file is an image without
    objects, which is kept. Nothing is dropped silently: whatever is changed or left out is in the
    returned report with the name of its file. Ids count from 1 in the order of the file names.

    Args:
        ann_dir (PathLike): Folder of the text files, searched with its subfolders.
        img_dir (PathLike): Folder of the images, named as the text files; ``file_name`` is relative
            to it.
        out_json (PathLike): The COCO file to write, atomically.
        classes (Sequence[str], optional): Class names in the order of their category ids. The files
            may use these names, or, if they hold nothing but integers, indices into them from 0.
            None takes what is found, sorted (integers by value).
        split (PathLike, optional): A text file with one image name a line. None takes every file.
        normalized (bool): The numbers are shares of the image's width and height (the YOLO format)
            instead of pixels.
        min_size (float): Boxes with a side below this many pixels get ``iscrowd=1``: MMDetection
            neither trains on them nor counts them as errors.
        missing_annotations (str): What becomes of an image without a text file: 'leave_out', or
            'empty' to keep it as an image without objects. Reported in both cases.
        strict (bool): Raise at the first problem instead of reporting it.

    Returns:
        ConversionReport: Counts, and everything that was not taken as it stood.

    Raises:
        LaunchError: If a folder does not exist; if the numbers are all at most 1, so that they
            cannot be pixels, and ``normalized`` is not set; if the classes are numbers, so that it
            is unknown whether labels are names or indices; if no image is left; or if ``strict``
            and a problem is met.
        FileNotFoundError: If the split file does not exist.

    Examples:
        >>> report = txt_to_coco('labels', 'images', 'train.json', classes=('cat', 'dog'))
        >>> print(report)  # doctest: +SKIP
    """
    report = ConversionReport(str(out_json), strict)

    def parse(file: Path, label: str) -> Annotation:
        boxes = []
        for number, line in enumerate(file.read_text('utf-8-sig').splitlines(), start=1):
            tokens = line.replace(',', ' ').split()
            if tokens and not tokens[0].startswith('#'):
                box = _read_box(tokens, classes or ())
                if box is None:
                    detail = f'line {number} is {line.strip()!r}, expected class cx cy w h'
                    report.add('malformed_line', label, detail, 'left out')
                else:
                    boxes.append(box)
        return Annotation(boxes)

    images = read_images(
        Path(ann_dir), '.txt', Path(img_dir), parse, report, split, missing_annotations
    )
    boxes = [box for image in images for box in image.boxes]
    if boxes and not normalized and all(max(map(abs, box.corners)) <= 1 for box in boxes):
        raise LaunchError(
            f'all boxes in {ann_dir} lie between 0 and 1, so they cannot be pixels: pass '
            'normalized=True (--normalized).'
        )
    images = [
        image._replace(boxes=[_corners(b, image, normalized) for b in image.boxes])
        for image in images
    ]
    images, names = _name_classes(images, classes)
    return write_coco(images, names, report, out_json, min_size)


def _read_box(tokens: List[str], classes: Collection[str]) -> Optional[RawBox]:
    """Read a box as (cx, cy, w, h); None where the tokens are none."""
    name = ' '.join(tokens[:-4])
    # a name may hold blanks, and a sixth number is no part of one
    if len(tokens) != 5 and name not in classes:
        return None
    try:
        cx, cy, w, h = map(float, tokens[-4:])
    except ValueError:
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
        raise LaunchError(
            f'the labels {", ".join(sorted(found, key=int))} are not the classes '
            f'{", ".join(classes)}, and may not be their indices: use names that are no numbers.'
        )

    def rename(box: RawBox) -> RawBox:
        index = int(box.name)
        # An index beyond the list stays a number, and is reported as an unknown class.
        return box._replace(name=classes[index]) if index < len(classes) else box

    return [i._replace(boxes=[rename(b) for b in i.boxes]) for i in images], classes
