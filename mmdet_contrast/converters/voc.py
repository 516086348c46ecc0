"""PASCAL VOC XML to COCO JSON."""

import contextlib
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from mmdet_contrast.utils.files import PathLike

from .coco import (
    Box,
    ConversionReport,
    RawBox,
    RawImage,
    assemble,
    byte_order_mark,
    find_files,
    progress,
    read_split,
    require_folder,
    save,
)
from .pictures import ImageFolder

_CONVENTIONS: Dict[str, Callable[[float, float, float, float], Box]] = {
    'minus_one': lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2 - 1, y2 - 1),
    'inclusive': lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2, y2),
    'zero_based': lambda x1, y1, x2, y2: (x1, y1, x2, y2),
}
# What files are written in that declare the first; all of it can be read as the second.
_LARGER_ENCODINGS = {
    'big5': 'cp950',
    'euc-kr': 'cp949',
    'gb2312': 'gb18030',
    'gb_2312-80': 'gb18030',
    'gbk': 'gb18030',
    'shift_jis': 'cp932',
    'shift-jis': 'cp932',
}
_DECLARATION = re.compile(rb'\s*<\?xml\b[^>]*?\bencoding\s*=\s*["\']([\w.:-]+)')
# The first character from which UTF-8 takes three bytes, which other encodings hardly ever imitate.
_THREE_BYTES = '\u0800'


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
        verify_images (bool): Decode each image to find those that training cannot read, or of which
            it sees nothing; False reads headers only.
        strict (bool): Raise at the first problem instead of reporting it.
        report_json (PathLike, optional): Also write the whole report to this file.

    Returns:
        ConversionReport: Counts, and everything that was not taken as it stood.

    Raises:
        ConversionError: If the source or the image folder does not exist, if no image is left, or
            if ``strict`` and a problem is met.
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
    xml_files = find_files(ann_dir, ('.xml',), report, 'ambiguous_annotation')
    # Without a list of images, every image in the folder is meant to have an annotation.
    every = {key: folder.names.get(key) for key in sorted({*xml_files, *folder.names})}
    if split is None:
        keys = list(every)
    else:
        listed = root / 'ImageSets' / 'Main' / f'{split}.txt'
        keys = read_split(Path(split) if Path(split).is_file() else listed, report, every)
    read = (
        _read_image(
            key, ann_dir / xml_files[key] if key in xml_files else None, folder, difficult, convert
        )
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
            text, doubt = _decode_xml(xml_file.read_bytes())
            root = ElementTree.fromstring(text)
            problem = f'the root element is <{root.tag}>' if root.tag != 'annotation' else None
        except (OSError, ValueError, ElementTree.ParseError) as error:
            problem = str(error)
        if problem is not None:
            report.add('unreadable_annotation', label, problem, 'image left out')
            return None
        if doubt:
            report.add('encoding_differs', label, doubt, 'read as UTF-8')

    named = _text(root, 'filename', label, report).strip() if root is not None else ''
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

    size = _single(root, 'size', label, report)
    stated = None
    if size is not None:
        stated = [_text(size, side, label, report) for side in ('width', 'height')]
    if stated is not None and _numbers(stated) != [float(width), float(height)]:
        detail = f'XML says {stated[0]} x {stated[1]}, the image is {width} x {height}'
        report.add('size_differs', label, detail, "image's size taken, boxes unchanged")
    boxes = []
    for number, item in enumerate(root.findall('object'), start=1):
        box = _read_object(item, number, label, report, difficult, convention)
        if box is not None:
            boxes.append(box)
    for parent, child in _misplaced(root):
        detail = f'<{child.tag}> in <{parent}> with {_plain_text(child)}'
        report.add('misplaced_object', label, detail, 'left out')
    return RawImage(file_name, width, height, boxes, label)


def _decode_xml(content: bytes) -> Tuple[str, Optional[str]]:
    """Decode an XML file, and say what is wrong with its declaration, if that matters.

    Python's parser knows few encodings, and takes text in place of bytes.
    """
    encoding = byte_order_mark(content)
    if encoding is None and content[:2] in (b'<\0', b'\0<'):
        encoding = 'utf-16-le' if content[:1] == b'<' else 'utf-16-be'
    if encoding is not None:
        return content.decode(encoding), None
    match = _DECLARATION.match(content)
    declared = match.group(1).decode() if match else 'utf-8'
    doubt = f'it says that it is in {declared}'
    text, utf8 = None, None
    with contextlib.suppress(UnicodeError):
        utf8 = content.decode('utf-8')
    # the bytes of these two would have zeros among them
    if not declared.lower().startswith(('utf-16', 'utf-32')):
        with contextlib.suppress(LookupError, UnicodeError):
            text = content.decode(_LARGER_ENCODINGS.get(declared.lower(), declared))
    if utf8 is None:
        if text is None:
            raise ValueError(f'it is not in {declared}' + ', as it says' * (match is not None))
        return text, None
    if text is None:
        return utf8, None if utf8.isascii() else doubt
    # It can be read as both. Where UTF-8 makes sense, the declaration is wrong.
    if text != utf8 and (max(utf8) >= _THREE_BYTES or len(text) == len(content)):
        return utf8, doubt
    return text, None


def _misplaced(
    element: ElementTree.Element, expected: str = 'object'
) -> Iterator[Tuple[str, ElementTree.Element]]:
    """Yield objects and boxes that are not where VOC has them, and what they are in."""
    for child in element:
        kind = child.tag.rpartition('}')[2].lower()
        # parts of an object, such as hands, have boxes of their own, which are no objects
        part = expected == 'bndbox' and kind == 'part'
        if kind in ('object', 'bndbox') and child.tag != expected:
            yield element.tag, child
        else:
            yield from _misplaced(child, 'bndbox' if part or child.tag == 'object' else '')


def _single(
    parent: ElementTree.Element, tag: str, label: str, report: ConversionReport
) -> Optional[ElementTree.Element]:
    """Find an element of which there must be one; several are reported."""
    found = parent.findall(tag)
    if len(found) > 1:
        detail = f'<{parent.tag}> has {len(found)} <{tag}>: ' + ', '.join(map(_plain_text, found))
        report.add('repeated_element', label, detail, 'the first one taken')
    return found[0] if found else None


def _text(
    parent: Optional[ElementTree.Element], tag: str, label: str, report: ConversionReport
) -> str:
    """Return the text of such an element, '' where there is none."""
    found = None if parent is None else _single(parent, tag, label, report)
    return '' if found is None else found.text or ''


def _plain_text(element: ElementTree.Element) -> str:
    return ' '.join(' '.join(element.itertext()).split()) or 'nothing'


def _numbers(texts: Sequence[str]) -> Optional[List[float]]:
    try:
        values = [float(text) for text in texts]
    except ValueError:
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
    name = _text(item, 'name', label, report).strip()
    if not name:
        report.add('object_without_class', label, f'object {number} has no <name>', 'left out')
        return None
    bndbox = _single(item, 'bndbox', label, report)
    texts = [_text(bndbox, tag, label, report) for tag in ('xmin', 'ymin', 'xmax', 'ymax')]
    values = _numbers(texts)
    if values is None:
        detail = f'{name} (object {number}) has corners {texts}'
        report.add('malformed_number', label, detail, 'left out')
        return None
    flag = _text(item, 'difficult', label, report).strip() or '0'
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
