"""PASCAL VOC XML to COCO JSON."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence

from mmdet_contrast.utils.files import PathLike

from .coco import Box, ConversionReport, RawBox, write_coco
from .pictures import Annotation, read_images

_CONVENTIONS: Dict[str, Callable[[float, float, float, float], Box]] = {
    'minus_one': lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2 - 1, y2 - 1),
    'inclusive': lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2, y2),
    'zero_based': lambda x1, y1, x2, y2: (x1, y1, x2, y2),
}
_DECLARED = re.compile(rb'\bencoding\s*=\s*["\']([\w.:-]+)')


def voc_to_coco(
    source: PathLike,
    out_json: PathLike,
    classes: Optional[Sequence[str]] = None,
    split: Optional[PathLike] = None,
    img_dir: Optional[PathLike] = None,
    difficult: str = 'ignore',
    convention: str = 'minus_one',
    min_size: float = 0,
    missing_annotations: str = 'leave_out',
    strict: bool = False,
) -> ConversionReport:
    """Convert PASCAL VOC XML annotations to one COCO JSON file.

    Nothing is dropped silently: whatever is changed or left out is in the returned report with the
    name of its file. Images without objects are kept. Ids count from 1 in the order of the file
    names, so the same data always gives the same file.

    Args:
        source (PathLike): A VOC root (the folder with ``Annotations``), or a folder of XML files.
        out_json (PathLike): The COCO file to write, atomically.
        classes (Sequence[str], optional): Class names in the order of their category ids. None
            takes the names found, sorted. Objects of other classes are left out and reported.
        split (PathLike, optional): A name in ``ImageSets/Main`` (``'train'``), or the path of a
            text file with one image name a line. None takes every XML file.
        img_dir (PathLike, optional): Folder of the images; ``file_name`` is relative to it. By
            default ``JPEGImages`` of the VOC root, or else the folder of the XML files.
        difficult (str): What becomes of objects flagged difficult: 'ignore' writes them with
            ``iscrowd=1``, which MMDetection neither trains on nor counts as an error; 'keep'
            writes them as ordinary objects.
        convention (str): How the XML counts pixels. 'minus_one', the default, subtracts 1 from
            all four numbers, as MMDetection's own ``XMLDataset`` does, so both give equal boxes.
            'inclusive' is PASCAL's definition (counted from 1, last pixel included):
            ``(xmin - 1, ymin - 1, xmax, ymax)``, one pixel wider. 'zero_based' takes the numbers as
            edges, which is what labelImg and most newer tools write.
        min_size (float): Boxes with a side below this many pixels get ``iscrowd=1``.
        missing_annotations (str): What becomes of an image that has no XML file: 'leave_out', or
            'empty' to keep it as an image without objects. Reported in both cases.
        strict (bool): Raise at the first problem instead of reporting it.

    Returns:
        ConversionReport: Counts, and everything that was not taken as it stood.

    Raises:
        LaunchError: If the source or the image folder does not exist, if no image is left, or if
            ``strict`` and a problem is met.
        FileNotFoundError: If the split does not exist.

    Examples:
        >>> report = voc_to_coco('VOC2007', 'annotations/train.json', split='train')
        >>> print(report)  # doctest: +SKIP
    """
    convert = _CONVENTIONS[convention]
    ignore_difficult = dict(ignore=True, keep=False)[difficult]
    report = ConversionReport(str(out_json), strict)
    root = Path(source)
    ann_dir = root / 'Annotations' if (root / 'Annotations').is_dir() else root
    if ann_dir.name == 'Annotations':
        root = ann_dir.parent
    if img_dir is None:
        img_dir = root / 'JPEGImages' if (root / 'JPEGImages').is_dir() else ann_dir
    if split is not None and not Path(split).is_file():
        split = root / 'ImageSets' / 'Main' / f'{split}.txt'

    def parse(file: Path, label: str) -> Annotation:
        root = _read_xml(file.read_bytes())
        if root.tag != 'annotation':
            raise ValueError(f'the root element is <{root.tag}>')
        objects, boxes = root.findall('object'), []
        for item in objects:
            name = item.findtext('name', '').strip()
            if not name:
                report.add('object_without_class', label, 'an object has no <name>', 'left out')
                continue
            corners = (_number(item, f'bndbox/{tag}') for tag in ('xmin', 'ymin', 'xmax', 'ymax'))
            box = RawBox(name, convert(*corners))
            if item.findtext('difficult', '').strip() == '1':
                box = box._replace(ignore=ignore_difficult)
                report.add('difficult', label, name, 'ignored: iscrowd=1' if box.ignore else 'kept')
            boxes.append(box)
        # parts of an object, such as hands, have boxes of their own, which are no objects
        taken = sum(item.find('bndbox') is not None for item in objects)
        taken += len(root.findall('object/part/bndbox'))
        lost = sum(e.tag.rpartition('}')[2].lower() == 'bndbox' for e in root.iter()) - taken
        if lost:
            detail = f'{lost} <bndbox> in other elements, or after the first one of an <object>'
            report.add('misplaced_object', label, detail, 'left out')
        size = None
        if root.find('size') is not None:
            size = _number(root, 'size/width'), _number(root, 'size/height')
        return Annotation(boxes, root.findtext('filename', '').strip(), size)

    images = read_images(ann_dir, '.xml', Path(img_dir), parse, report, split, missing_annotations)
    names = classes or sorted({box.name for image in images for box in image.boxes})
    return write_coco(images, names, report, out_json, min_size)


def _read_xml(content: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content)
    except ValueError:
        # Python's parser knows no encodings of several bytes, such as GB2312, but takes text
        declared = _DECLARED.search(content)
        if declared is None:
            raise
        return ElementTree.fromstring(content.decode(declared.group(1).decode()))


def _number(parent: ElementTree.Element, path: str) -> float:
    """Give the number in an element; NaN, which is reported, where there is none."""
    try:
        return float(parent.findtext(path, ''))
    except ValueError:
        return float('nan')
