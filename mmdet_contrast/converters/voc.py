"""PASCAL VOC XML to COCO JSON."""

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from mmdet_contrast.utils.files import PathLike

from .coco import (
    Box,
    ConversionReport,
    ImageFolder,
    RawBox,
    RawImage,
    assemble,
    progress,
    read_split,
    require_folder,
    save,
)

_CONVENTIONS: Dict[str, Callable[[float, float, float, float], Box]] = {
    'minus_one': lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2 - 1, y2 - 1),
    'inclusive': lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2, y2),
    'zero_based': lambda x1, y1, x2, y2: (x1, y1, x2, y2),
}


def voc_to_coco(
    source: PathLike,
    out_json: Optional[PathLike] = None,
    classes: Optional[Sequence[str]] = None,
    split: Optional[PathLike] = None,
    img_dir: Optional[PathLike] = None,
    difficult: str = 'ignore',
    convention: str = 'minus_one',
    min_size: float = 0,
    clip: bool = True,
    missing_annotations: str = 'leave_out',
    verify_images: bool = True,
    strict: bool = False,
    report_json: Optional[PathLike] = None,
) -> ConversionReport:
    """Convert PASCAL VOC XML annotations to one COCO JSON file.

    Nothing is dropped silently: whatever is changed or left out is in the returned report with the
    name of its file. Images without objects are kept. Ids count from 1 in the order of the file
    names, so the same data always gives the same file.

    Args:
        source (PathLike): A VOC root (the folder with ``Annotations``), or a folder of XML files.
        out_json (PathLike, optional): The COCO file to write, atomically. None only checks.
        classes (Sequence[str], optional): Class names in the order of their category ids. None
            takes the names found, sorted. Objects of other classes are left out and reported.
        split (PathLike, optional): A name in ``ImageSets/Main`` (``'train'``), or the path of a
            text file with one image name a line. None takes every XML file.
        img_dir (PathLike, optional): Folder of the images; ``file_name`` is relative to it. By
            default ``JPEGImages`` of the VOC root, or else the folder of the XML files.
        difficult (str): What becomes of objects flagged difficult: 'ignore' writes them with
            ``iscrowd=1``, which MMDetection neither trains on nor counts as an error; 'keep'
            writes them as ordinary objects; 'drop' leaves them out.
        convention (str): How the XML counts pixels. 'minus_one', the default, subtracts 1 from
            all four numbers, as MMDetection's own ``XMLDataset`` does, so both give equal boxes.
            'inclusive' is PASCAL's definition (counted from 1, last pixel included):
            ``(xmin - 1, ymin - 1, xmax, ymax)``, one pixel wider. 'zero_based' takes the numbers as
            edges, which is what labelImg and most newer tools write.
        min_size (float): Boxes with a side below this many pixels get ``iscrowd=1``.
        clip (bool): Clip boxes that leave the picture (reported).
        missing_annotations (str): What becomes of an image that has no XML file: 'leave_out', or
            'empty' to keep it as an image without objects. Reported in both cases.
        verify_images (bool): Decode each image to find damaged ones; False reads headers only.
        strict (bool): Raise at the first problem instead of reporting it.
        report_json (PathLike, optional): Also write the whole report to this file.

    Returns:
        ConversionReport: Counts, and everything that was not taken as it stood.

    Raises:
        ConversionError: If the source or the image folder does not exist, or if ``strict`` and a
            problem is met.
        FileNotFoundError: If the split does not exist.

    Examples:
        >>> report = voc_to_coco('VOC2007', 'annotations/train.json', split='train')
        >>> print(report)  # doctest: +SKIP
    """
    convert = _CONVENTIONS[convention]
    report = ConversionReport(out_file=str(out_json or ''), strict=strict)
    root = require_folder(Path(source), 'source')
    ann_dir = root / 'Annotations' if (root / 'Annotations').is_dir() else root
    if ann_dir.name == 'Annotations':
        root = ann_dir.parent
    if img_dir is None:
        img_dir = root / 'JPEGImages' if (root / 'JPEGImages').is_dir() else ann_dir
    folder = ImageFolder(Path(img_dir), report, missing_annotations, verify_images)
    xml_files = {
        path.relative_to(ann_dir).with_suffix('').as_posix(): path
        for path in sorted(ann_dir.rglob('*'))
        if path.suffix.lower() == '.xml'
    }
    if split is None:
        # Without a list of images, every image in the folder is meant to have an annotation.
        keys = sorted(xml_files) + sorted(set(folder.names) - set(xml_files))
    else:
        listed = root / 'ImageSets' / 'Main' / f'{split}.txt'
        keys = read_split(Path(split) if Path(split).is_file() else listed, report)
    read = (
        _read_image(key, xml_files.get(key), folder, difficult, convert)
        for key in progress(keys, 'reading')
    )
    images = [image for image in read if image is not None]
    names = classes or sorted({box.name for image in images for box in image.boxes})
    coco = assemble(images, names, report, min_size, clip)
    return save(coco, report, out_json, report_json)


def _read_image(
    key: str,
    xml_file: Optional[Path],
    folder: ImageFolder,
    difficult: str,
    convention: Callable[[float, float, float, float], Box],
) -> Optional[RawImage]:
    """Read one image with its boxes; None where it cannot be used (reported)."""
    label, report = f'{key}.xml', folder.report
    root = None
    if xml_file is None:
        if not folder.keeps_without_annotation(label, 'XML'):
            return None
    else:
        try:
            root = ElementTree.parse(xml_file).getroot()
            problem = f'the root element is <{root.tag}>' if root.tag != 'annotation' else None
        except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
            problem = str(error)
        if problem is not None:
            report.add('unreadable_annotation', label, problem, 'image left out')
            return None

    named = (root.findtext('filename') or '').strip() if root is not None else ''
    # The base name only: an annotation must not reach outside the image folder.
    named = named.replace('\\', '/').rsplit('/', 1)[-1]
    file_name = folder.names.get(key)
    if file_name is None and named and (folder.folder / named).is_file():
        file_name = named
    if file_name is None:
        detail = f'neither {key!r} nor {named!r} is an image of the folder'
        report.add('missing_image', label, detail, 'image left out')
        return None
    if named and named.rsplit('.', 1)[0] != Path(file_name).stem and named != file_name:
        detail = f'<filename> says {named!r}'
        report.add('file_name_differs', label, detail, 'image named as the XML file taken')
    picture = folder.size(file_name)
    if picture is None:
        return None
    width, height = picture
    if root is None:
        return RawImage(file_name, width, height, [], label)

    size = root.find('size')
    stated = (size.findtext('width'), size.findtext('height')) if size is not None else None
    if stated is not None and _numbers(stated) != [float(width), float(height)]:
        detail = f'XML says {stated[0]} x {stated[1]}, the image is {width} x {height}'
        report.add('size_differs', label, detail, "image's size taken, boxes unchanged")
    boxes = []
    for number, item in enumerate(root.findall('object'), start=1):
        box = _read_object(item, number, label, report, difficult, convention)
        if box is not None:
            boxes.append(box)
    return RawImage(file_name, width, height, boxes, label)


def _numbers(texts: Sequence[Optional[str]]) -> Optional[List[float]]:
    try:
        values = [float(text) for text in texts]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return values if all(math.isfinite(value) for value in values) else None


def _read_object(
    item: ElementTree.Element,
    number: int,
    label: str,
    report: ConversionReport,
    difficult: str,
    convention: Callable[[float, float, float, float], Box],
) -> Optional[RawBox]:
    name = (item.findtext('name') or '').strip()
    if not name:
        report.add('object_without_class', label, f'object {number} has no <name>', 'left out')
        return None
    texts = [item.findtext(f'bndbox/{tag}') for tag in ('xmin', 'ymin', 'xmax', 'ymax')]
    values = _numbers(texts)
    if values is None:
        detail = f'{name} (object {number}) has corners {texts}'
        report.add('malformed_number', label, detail, 'left out')
        return None
    flag = (item.findtext('difficult') or '0').strip()
    if flag not in ('0', '1'):
        detail = f'{name} (object {number}) has <difficult>{flag}</difficult>'
        report.add('malformed_number', label, detail, 'taken as not difficult')
    corners = convention(*values)
    if flag != '1':
        return RawBox(name, corners)
    actions = {'ignore': 'ignored: iscrowd=1', 'keep': 'kept', 'drop': 'left out'}
    report.add('difficult', label, f'{name} (object {number})', actions[difficult])
    if difficult == 'drop':
        return None
    return RawBox(name, corners, ignore=difficult == 'ignore', extra={'difficult': 1})
