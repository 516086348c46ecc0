"""What converters to COCO JSON share: finding files, checking boxes, writing, and the report."""

import argparse
import codecs
import math
import re
import sys
from collections import Counter
from pathlib import Path
from types import MappingProxyType
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from tqdm import tqdm

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike, write_json

Box = Tuple[float, float, float, float]
T = TypeVar('T')

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
# UTF-32 first: its mark begins with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, 'utf-8-sig'),
    (codecs.BOM_UTF32_LE, 'utf-32'),
    (codecs.BOM_UTF32_BE, 'utf-32'),
    (codecs.BOM_UTF16_LE, 'utf-16'),
    (codecs.BOM_UTF16_BE, 'utf-16'),
)
# Whether a class is in the image, after its name.
_COLUMN = re.compile(r'(?<=\S)\s+(-1|0|1)\s*$')
# CocoDataset skips thinner boxes without a word, so they are left out here, with one.
_THINNEST = 1.0
# A box may leave the picture by a pixel merely because tools count pixels differently.
_PIXEL = 1.0
_FILES_SHOWN = 3
_PROBLEMS_SHOWN = 30

# Notes describe the data and are expected in a clean set; everything else is a problem, at which a
# strict conversion stops.
_NOTES = frozenset({'difficult', 'below_min_size', 'image_without_objects', 'box_snapped'})


class ConversionError(LaunchError):
    """A conversion that cannot be done; the message says why and what to change."""


class Finding(NamedTuple):
    """One thing that was not taken as it stood.

    Attributes:
        kind (str): What it is, for example ``'box_outside'``.
        file (str): The annotation or image file it was found in.
        detail (str): The offending value, readable by a person.
        action (str): What the converter did about it.
    """

    kind: str
    file: str
    detail: str
    action: str

    @property
    def is_note(self) -> bool:
        """bool: Whether this is expected in a clean data set."""
        return self.kind in _NOTES


class ConversionReport:
    """Counts of a conversion, and by file name everything that was changed or left out.

    Args:
        classes (Sequence[str]): Class names in the order of their category ids (from 1).
        out_file (str): The COCO JSON file that was written, '' if none.
        strict (bool): Raise :class:`ConversionError` at the first problem. Notes (difficult flags,
            images without objects, boxes below ``min_size``) never raise.

    Attributes:
        num_images (int): Images written.
        num_boxes (int): Boxes written, ignored ones (``iscrowd=1``) included.
        num_ignored (int): Boxes written with ``iscrowd=1``.
        per_class (Counter): Boxes written per class name, ignored ones included.
        findings (List[Finding]): In the order in which they were found.

    Examples:
        >>> report = ConversionReport(['cat'])
        >>> report.add('box_outside', 'a.xml', 'cat at (900, 3, 950, 9)', 'left out')
        >>> report.count('box_outside'), report.files('box_outside')
        (1, ['a.xml'])
    """

    def __init__(
        self, classes: Sequence[str] = (), out_file: str = '', strict: bool = False
    ) -> None:
        self.classes = list(classes)
        self.out_file = out_file
        self.strict = strict
        self.num_images = 0
        self.num_boxes = 0
        self.num_ignored = 0
        self.per_class: 'Counter[str]' = Counter()
        self.findings: List[Finding] = []

    def add(self, kind: str, file: str, detail: str, action: str) -> None:
        """Record one finding.

        Args:
            kind (str): Kind of finding.
            file (str): File it was found in.
            detail (str): The offending value.
            action (str): What was done about it.

        Raises:
            ConversionError: If the report is strict and the finding is a problem.
        """
        finding = Finding(kind, str(file), detail, action)
        self.findings.append(finding)
        if self.strict and not finding.is_note:
            raise ConversionError(
                f'{finding.file}: {kind.replace("_", " ")}: {detail}. Correct the file, or convert '
                f'without strict ({action}).'
            )

    def of_kind(self, kind: str) -> List[Finding]:
        """Return the findings of one kind, in the order in which they were found."""
        return [f for f in self.findings if f.kind == kind]

    def count(self, kind: str) -> int:
        """Count the findings of one kind."""
        return len(self.of_kind(kind))

    def files(self, kind: str) -> List[str]:
        """Return the names of the files with findings of one kind, sorted, each once."""
        return sorted({f.file for f in self.of_kind(kind)})

    @property
    def kinds(self) -> List[str]:
        """List[str]: Kinds found, sorted, problems before notes."""
        return sorted({f.kind for f in self.findings}, key=lambda k: (k in _NOTES, k))

    @property
    def num_problems(self) -> int:
        """int: Number of findings that are not notes."""
        return sum(not f.is_note for f in self.findings)

    def to_dict(self) -> Dict[str, Any]:
        """Return the whole report as JSON-serialisable values; every finding is in it."""
        return {
            'out_file': self.out_file,
            'classes': self.classes,
            'num_images': self.num_images,
            'num_boxes': self.num_boxes,
            'num_ignored': self.num_ignored,
            'num_problems': self.num_problems,
            'per_class': {c: self.per_class[c] for c in self.classes},
            'findings': {k: [f._asdict() for f in self.of_kind(k)] for k in self.kinds},
        }

    def __str__(self) -> str:
        """Format a table for the terminal: totals, boxes per class, findings by kind."""
        lines = [
            f'{self.num_images} images, {self.num_boxes} boxes '
            f'({self.num_ignored} of them ignored: iscrowd=1)'
            + (f' -> {self.out_file}' if self.out_file else '')
        ]
        lines += _table([('class', 'boxes')], ((c, str(self.per_class[c])) for c in self.classes))
        if not self.findings:
            return '\n'.join(lines + ['nothing was changed or left out'])
        rows = []
        for kind in self.kinds:
            found, files = self.of_kind(kind), self.files(kind)
            actions = '; '.join(sorted({f.action for f in found}))
            shown = ', '.join(files[:_FILES_SHOWN])
            if len(files) > _FILES_SHOWN:
                shown += f' … and {len(files) - _FILES_SHOWN} more'
            label = 'note' if kind in _NOTES else 'problem'
            rows.append((kind, label, str(len(found)), actions, shown))
        lines += _table([('found', '', 'times', 'done', 'in')], rows)
        problems = [f for f in self.findings if not f.is_note]
        lines += [f'  {f.file}: {f.kind}: {f.detail}' for f in problems[:_PROBLEMS_SHOWN]]
        if len(problems) > _PROBLEMS_SHOWN:
            lines.append('  … (save the report as JSON for all of them)')
        return '\n'.join(lines)


def _table(header: List[Sequence[str]], rows: Iterable[Sequence[str]]) -> List[str]:
    rows = [*header, *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ['  ' + '  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]


class RawBox(NamedTuple):
    """A box as read: class name, corners in pixels, and whether it is to be ignored."""

    name: str
    corners: Box
    ignore: bool = False
    extra: Optional[Dict[str, Any]] = None


class RawImage(NamedTuple):
    """An image as read, with the file that its findings are reported under."""

    file_name: str
    width: int
    height: int
    boxes: List[RawBox]
    source: str


def require_folder(folder: Path, name: str) -> Path:
    """Return a folder, or refuse a path that is none, in which nothing would be found."""
    if not folder.is_dir():
        raise ConversionError(f'{name} {folder} is not a folder.')
    return folder


def progress(items: Sequence[T], label: str) -> Iterator[T]:
    """Iterate with a progress bar on standard error.

    Args:
        items (Sequence): What to iterate over.
        label (str): Text in front of the bar.

    Yields:
        Any: Each item.
    """
    # where it is no terminal every update stays, so there are few
    yield from tqdm(items, desc=label, mininterval=0.1 if sys.stderr.isatty() else 5)


def find_files(
    folder: Path, suffixes: Sequence[str], report: ConversionReport, ambiguous: str
) -> Dict[str, str]:
    """Find the files of some kinds below a folder.

    Args:
        folder (Path): The folder, searched with its subfolders.
        suffixes (Sequence[str]): Endings of the files, in small letters.
        report (ConversionReport): Files that differ in their ending only are added to it.
        ambiguous (str): What such a finding is called.

    Returns:
        Dict[str, str]: Relative path without suffix → relative path (POSIX), sorted.
    """
    names: Dict[str, str] = {}
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() not in suffixes or not path.is_file():
            continue
        relative = path.relative_to(folder)
        name, key = relative.as_posix(), relative.with_suffix('').as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            report.add('unreadable_name', ascii(name), 'the name is not in UTF-8', 'file left out')
            continue
        if names.setdefault(key, name) != name:
            report.add(ambiguous, names[key], f'also {name}', 'first taken')
    return names


def decode_text(content: bytes) -> str:
    """Decode UTF-8, or what a byte order mark says.

    Raises:
        ValueError: If it is something else.
    """
    text = content.decode(byte_order_mark(content) or 'utf-8')
    if '\0' in text:
        raise ValueError('zeros among the characters, as in UTF-16 without a byte order mark')
    return text


def byte_order_mark(content: bytes) -> Optional[str]:
    """Return the encoding that the first bytes of a text file announce, None if there is none."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)


def read_split(
    path: Path, report: ConversionReport, known: Mapping[str, Optional[str]] = MappingProxyType({})
) -> List[str]:
    """Read image names from an ImageSets file, without the -1/0/1 column of per-class sets.

    A line is the name of an image, with or without folders and ending. Only if there is no such
    image, it is a name and a column.

    Args:
        path (Path): A text file with one image name a line.
        report (ConversionReport): Repeated and doubtful names are added to it.
        known (Mapping[str, str | None]): The names that there are, without ending, and the image
            file of each.

    Returns:
        List[str]: The names, sorted, each once. Those that are not known are among them.

    Raises:
        ConversionError: If it is no text file.
        FileNotFoundError: If it does not exist.
    """
    try:
        lines = decode_text(path.read_bytes()).splitlines()
    except ValueError as error:
        raise ConversionError(f'{path} is not text in UTF-8 ({error}): save it as such.') from error
    lines = [line for line in lines if line.strip()]
    # In a set of a class every line has a column, so none of its lines is a name as it stands.
    is_class_set = all(_COLUMN.search(line) and not _known_name(line, known) for line in lines)
    names = set()
    for line in lines:
        shown = line.strip()
        stated, column = shown, _COLUMN.search(line)
        name = _known_name(line, known)
        if name is None and column:
            stated = line[: column.start()].strip()
            name = _known_name(stated, known)
            if name is not None and not is_class_set:
                detail = f'there is no image {shown!r}'
                report.add('doubtful_line', path.name, detail, f'taken as {name!r}')
        if name is None:
            name = ' '.join(stated.split())
            name = str(Path(name).with_suffix('')) if _has_ending(name) else name
        file = known.get(name)
        suffix = Path(stated).suffix
        if file and suffix.lower() in IMAGE_SUFFIXES and not f'{name}{suffix}' == file:
            detail = f'{shown!r} is listed, the image is {file!r}'
            report.add('file_name_differs', path.name, detail, 'image of that name taken')
        if name in names:
            report.add('duplicate_image', path.name, f'{name!r} is listed again', 'taken once')
        names.add(name)
    return sorted(names)


def _known_name(line: str, known: Mapping[str, Optional[str]]) -> Optional[str]:
    """Find the image that a line names; of several, the one with most of its folders."""
    files = [token for token in line.split() if _has_ending(token)]
    if len(files) > 1 and line.strip() not in known:
        # some lists name the annotation file beside the image
        names = {_known_name(file, known) for file in files}
        return names.pop() if len(names) == 1 else None
    # A name may hold blanks, but what is around it is seldom meant.
    for text in (line, line.strip(), ' '.join(line.split())):
        for name in _spellings(text):
            if name in known:
                return name
    return None


def _spellings(text: str) -> Iterator[str]:
    """Yield a name as it stands, then with fewer and fewer folders, with its ending and without."""
    yield text
    parts = [part for part in text.replace('\\', '/').split('/') if part not in ('', '.')]
    for start in range(len(parts)):
        name = '/'.join(parts[start:])
        yield name
        if _has_ending(name):
            yield name.rpartition('.')[0]


def _has_ending(name: str) -> bool:
    return Path(name).suffix.lower() in (*IMAGE_SUFFIXES, '.txt', '.xml')


def assemble(
    images: Sequence[RawImage],
    classes: Sequence[str],
    report: ConversionReport,
    min_size: float = 0,
    clip: bool = True,
) -> Dict[str, Any]:
    """Check the boxes and put together the COCO dictionary.

    Args:
        images (Sequence[RawImage]): Images with boxes in pixels, (x1, y1, x2, y2).
        classes (Sequence[str]): Class names, each once; their category ids count from 1.
        report (ConversionReport): Counts and findings are added to it.
        min_size (float): Boxes with a side below this many pixels are written with ``iscrowd=1``.
        clip (bool): Clip boxes that leave the picture.

    Returns:
        Dict[str, Any]: ``images``, ``annotations``, ``categories``: sorted by file name, ids
        from 1, so that the order of the input does not matter.

    Raises:
        ConversionError: If a class is given twice, or a string in place of a list.
    """
    if isinstance(classes, str) or len(set(classes)) < len(classes):
        raise ConversionError(f'classes is {classes!r}: give a list of names, each once.')
    category = {name: index + 1 for index, name in enumerate(classes)}
    report.classes = list(classes)
    coco: Dict[str, Any] = {
        'info': {'description': 'converted by mmdet_contrast'},
        'images': [],
        'annotations': [],
        'categories': [{'id': category[c], 'name': c, 'supercategory': ''} for c in classes],
    }
    seen: Dict[str, str] = {}
    for image in sorted(images, key=lambda i: (i.file_name, i.source)):
        if image.file_name in seen:
            detail = f'{image.file_name!r} was already described by {seen[image.file_name]}'
            report.add('duplicate_image', image.source, detail, 'left out')
            continue
        seen[image.file_name] = image.source
        image_id = len(coco['images']) + 1
        coco['images'].append(
            dict(id=image_id, file_name=image.file_name, width=image.width, height=image.height)
        )
        kept = set()
        for box in image.boxes:
            annotation = _annotation(box, image, category, report, min_size, clip)
            if annotation is None:
                continue
            signature = (annotation['category_id'], tuple(annotation['bbox']))
            if signature in kept:
                report.add('duplicate_box', image.source, _describe(box), 'kept')
            kept.add(signature)
            annotation['id'] = len(coco['annotations']) + 1
            annotation['image_id'] = image_id
            coco['annotations'].append(annotation)
            report.num_boxes += 1
            report.num_ignored += annotation['iscrowd']
            report.per_class[box.name] += 1
        if not kept:
            detail = f'{len(image.boxes)} were read' if image.boxes else 'none annotated'
            report.add('image_without_objects', image.source, detail, 'image kept')
    report.num_images = len(coco['images'])
    return coco


def _annotation(
    box: RawBox,
    image: RawImage,
    category: Dict[str, int],
    report: ConversionReport,
    min_size: float,
    clip: bool,
) -> Optional[Dict[str, Any]]:
    """Make an annotation of a box, or report why there is none."""
    x1, y1, x2, y2 = box.corners
    over = max(-x1, -y1, x2 - image.width, y2 - image.height)
    detail = _describe(box)
    if over > 0:
        detail += f', picture {image.width} x {image.height}'

    problem = None
    if box.name not in category:
        problem = 'unknown_class'
    elif not all(map(math.isfinite, box.corners)):
        problem = 'malformed_number'
    elif x2 < x1 or y2 < y1:
        problem = 'box_inverted'
    elif x2 == x1 or y2 == y1:
        problem = 'box_without_area'
    elif min(x2, image.width) <= max(x1, 0) or min(y2, image.height) <= max(y1, 0):
        problem = 'box_outside'
    if problem is not None:
        report.add(problem, image.source, detail, 'left out')
        return None

    if over > 0:
        kind = 'box_clipped' if over > _PIXEL else 'box_snapped'
        report.add(kind, image.source, detail, 'clipped to the picture' if clip else 'kept')
        if clip:
            x1, y1 = max(x1, 0.0), max(y1, 0.0)
            x2, y2 = min(x2, float(image.width)), min(y2, float(image.height))
    width, height = x2 - x1, y2 - y1
    if width < _THINNEST or height < _THINNEST:
        report.add('box_below_one_pixel', image.source, detail, 'left out')
        return None
    ignore = box.ignore
    if width < min_size or height < min_size:
        report.add('below_min_size', image.source, detail, 'ignored: iscrowd=1')
        ignore = True
    # Only iscrowd: CocoDataset drops an annotation with 'ignore', so its region would be trained
    # and evaluated as background.
    return {
        'id': 0,
        'image_id': 0,
        'category_id': category[box.name],
        'bbox': [_tidy(v) for v in (x1, y1, width, height)],
        'area': _tidy(width * height),
        'iscrowd': int(ignore),
        **(box.extra or {}),
    }


def _tidy(value: float) -> Union[int, float]:
    value = round(float(value), 4)
    return int(value) if value.is_integer() else value


def _describe(box: RawBox) -> str:
    return f'{box.name} at ({", ".join(f"{value:g}" for value in box.corners)})'


def save(
    coco: Dict[str, Any],
    report: ConversionReport,
    out_json: Optional[PathLike],
    report_json: Optional[PathLike],
) -> ConversionReport:
    """Write the COCO file and the report, each where a path is given, and return the report.

    Raises:
        ConversionError: If no image is left. The report is written, the COCO file is not.
    """
    if report_json is not None:
        write_json(report_json, report.to_dict(), indent=1)
    if not coco['images']:
        raise ConversionError(f'no image is left, so no annotations are written: {_why(report)}.')
    if out_json is not None:
        write_json(out_json, coco)
    return report


def _why(report: ConversionReport) -> str:
    """Say in a line why there is no image."""
    reasons = []
    for kind in report.kinds:
        found = [f for f in report.of_kind(kind) if f.action.endswith('left out')]
        if found:
            first = f'{found[0].file}: {found[0].detail}'
            reasons.append(f'{len(found)} x {kind.replace("_", " ")} ({first})')
    return '; '.join(reasons) or 'none was found'


def run_converter(
    parser: argparse.ArgumentParser, convert: Callable[..., ConversionReport], split_help: str
) -> None:
    """Add the options that every converter has, convert, and print the report.

    Args:
        parser (argparse.ArgumentParser): Parser with the converter's own arguments, named as the
            parameters of ``convert``.
        convert (Callable[..., ConversionReport]): The converter; gets every argument by keyword.
        split_help (str): What ``--split`` takes.
    """
    parser.add_argument('--classes', nargs='+', help='class names in order; default: those found')
    parser.add_argument('--split', help=split_help)
    parser.add_argument(
        '--min-size', type=float, default=0, help='ignore boxes with a side below this, in pixels'
    )
    parser.add_argument(
        '--no-clip', dest='clip', action='store_false', help='keep what lies beyond the picture'
    )
    parser.add_argument(
        '--missing-annotations',
        choices=['leave_out', 'empty'],
        default='leave_out',
        help='leave out images without an annotation file (default), or keep them without boxes',
    )
    parser.add_argument(
        '--no-verify', dest='verify_images', action='store_false', help='read image headers only'
    )
    parser.add_argument('--strict', action='store_true', help='stop at the first problem')
    parser.add_argument(
        '--report',
        dest='report_json',
        metavar='REPORT',
        help='also write the whole report to this JSON file',
    )
    args = vars(parser.parse_args())
    try:
        print(convert(**args))
    except (LaunchError, FileNotFoundError) as error:
        raise SystemExit(f'{parser.prog}: error: {error}') from error
