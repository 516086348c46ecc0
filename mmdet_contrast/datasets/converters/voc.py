"""PASCAL VOC XML to COCO JSON."""

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

from ._coco import (
    Box,
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

__all__ = ['voc_to_coco']

_CONVENTIONS: Dict[str, Callable[[float, float, float, float], Box]] = {
    'minus_one': lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2 - 1, y2 - 1),
    'inclusive': lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2, y2),
    'zero_based': lambda x1, y1, x2, y2: (x1, y1, x2, y2),
}


def voc_to_coco(
    source: Union[PathLike, Sequence[PathLike]],
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
    progress: bool = True,
    report_json: Optional[PathLike] = None,
) -> ConversionReport:
    """Convert PASCAL VOC XML annotations to one COCO JSON file.

    Nothing is dropped silently: whatever is changed or left out is in the returned report with the
    name of its file. Images without objects are kept. Ids count from 1 in the order of the file
    names, so the same data always gives the same file.

    Args:
        source (PathLike or Sequence[PathLike]): A VOC root (the folder with ``Annotations``), a
            folder of XML files, or a list of XML files.
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
        progress (bool): Show a progress bar.
        report_json (PathLike, optional): Also write the whole report to this file.

    Returns:
        ConversionReport: Counts, and everything that was not taken as it stood.

    Raises:
        FileNotFoundError: If the source, the split or the image folder does not exist.
        ValueError: If an option has no such value.
        ConversionError: If ``strict`` and a problem is met.

    Examples:
        >>> report = voc_to_coco('VOC2007', 'annotations/train.json', split='train')
        >>> print(report)  # doctest: +SKIP
    """
    check_options(
        min_size,
        difficult=(difficult, ('ignore', 'keep', 'drop')),
        convention=(convention, tuple(_CONVENTIONS)),
        missing_annotations=(missing_annotations, MISSING_ANNOTATIONS),
    )
    if classes is not None:
        resolve_classes(classes, ())
    report = ConversionReport(out_file=str(out_json or ''), strict=strict)
    xml_files, images_folder, listed = _locate(source, split, img_dir, report)
    folder = ImageFolder(images_folder, report, missing_annotations, verify_images)

    if listed is None:
        listed = sorted(xml_files)
        # Without a list of images, every image in the folder is meant to have an annotation.
        known = set(listed)
        listed += [key for key in sorted(folder.names) if key not in known]
    images = read_images(
        listed,
        lambda key: _read_image(
            key, xml_files.get(key), folder, difficult, _CONVENTIONS[convention]
        ),
        progress,
    )
    coco = assemble(images, resolve_classes(classes, images), report, min_size, clip)
    return save(coco, report, out_json, report_json)


def _locate(
    source: Union[PathLike, Sequence[PathLike]],
    split: Optional[PathLike],
    img_dir: Optional[PathLike],
    report: ConversionReport,
) -> Tuple[Dict[str, Path], Path, Optional[List[str]]]:
    """XML file by image name, the image folder, and the image names of the split if any."""
    root: Optional[Path] = None
    if isinstance(source, (list, tuple)):
        files = [Path(path) for path in source]
        if not files and img_dir is None:
            raise FileNotFoundError('the list of XML files is empty; pass at least one file.')
        ann_dir = files[0].parent if files else Path(str(img_dir))
        keyed = [(path.stem, path) for path in files]
    else:
        ann_dir = Path(source)  # type: ignore[arg-type]
        if not ann_dir.is_dir():
            raise FileNotFoundError(
                f'{ann_dir} is not a folder; pass a VOC root (the folder with Annotations), a '
                'folder of XML files, or a list of XML files.'
            )
        if (ann_dir / 'Annotations').is_dir():
            root, ann_dir = ann_dir, ann_dir / 'Annotations'
        files = sorted(p for p in ann_dir.rglob('*') if p.suffix.lower() == '.xml')
        keyed = [(path.relative_to(ann_dir).with_suffix('').as_posix(), path) for path in files]
    if root is None and ann_dir.name == 'Annotations':
        root = ann_dir.parent

    xml_files: Dict[str, Path] = {}
    for key, path in sorted(keyed, key=lambda pair: (pair[0], str(pair[1]))):
        if key in xml_files:
            detail = f'the image of {xml_files[key]} again'
            report.add('duplicate_image', str(path), detail, 'left out')
            continue
        xml_files[key] = path

    if img_dir is not None:
        images_folder = Path(img_dir)
    elif root is not None and (root / 'JPEGImages').is_dir():
        images_folder = root / 'JPEGImages'
    else:
        images_folder = ann_dir
    if not images_folder.is_dir():
        raise FileNotFoundError(f'image folder {images_folder} does not exist; set img_dir.')

    if split is None:
        # A list of files is a choice: other images of the folder are not meant.
        return (
            xml_files,
            images_folder,
            sorted(xml_files) if isinstance(source, (list, tuple)) else None,
        )
    tried = [Path(split)]
    if root is not None:
        tried.append(root / 'ImageSets' / 'Main' / f'{split}.txt')
    for path in reversed(tried):
        if path.is_file():
            names = unique_names(read_split(path), report, path.name)
            return xml_files, images_folder, names
    raise FileNotFoundError(
        f'no split {str(split)!r}: looked for {" and ".join(str(p) for p in reversed(tried))}.'
    )


def _read_image(
    key: str,
    xml_file: Optional[Path],
    folder: ImageFolder,
    difficult: str,
    convention: Callable[[float, float, float, float], Box],
) -> Optional[RawImage]:
    """One image with its boxes, or None where it cannot be used (reported)."""
    label, report = f'{key}.xml', folder.report
    root = None
    if xml_file is None or not xml_file.is_file():
        if not folder.keeps_without_annotation(label, 'XML'):
            return None
    else:
        try:
            root = _parse(xml_file)
        except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
            report.add('unreadable_annotation', label, str(error), 'image left out')
            return None

    named = (root.findtext('filename') or '').strip() if root is not None else ''
    # The base name only: an annotation must not reach outside the image folder.
    named = named.replace('\\', '/').rsplit('/', 1)[-1]
    file_name = folder.names.get(key)
    if file_name is None and named and (folder.folder / named).is_file():
        file_name = named
    if file_name is None:
        detail = f'no image {key!r}' + (f' nor {named!r}' if named else '') + ' in the folder'
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


def _parse(path: Path) -> ElementTree.Element:
    content = path.read_bytes()
    # Annotations need no entities, and expanding them can fill the memory.
    if b'<!ENTITY' in content or b'<!DOCTYPE' in content:
        raise ValueError('a document type or entity is declared, which annotations do not need')
    root = ElementTree.fromstring(content)
    if root.tag != 'annotation':
        raise ValueError(f'the root element is <{root.tag}>, expected <annotation>')
    return root


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
