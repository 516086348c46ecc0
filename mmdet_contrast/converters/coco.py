"""What converters to COCO JSON share: checking boxes, the report, and the command line."""

import argparse
import math
from collections import Counter
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from terminaltables import AsciiTable

from mmdet_contrast.utils.config import LaunchError, errors_in_one_line
from mmdet_contrast.utils.files import PathLike, write_json

Box = Tuple[float, float, float, float]

# CocoDataset skips thinner boxes without a word, so they are left out here, with one.
_THINNEST = 1.0
# A box may leave the picture by a pixel merely because tools count pixels differently.
_PIXEL = 1.0
# of each kind
_PROBLEMS_SHOWN = 5

# Notes describe the data and are expected in a clean set; everything else is a problem, at which a
# strict conversion stops.
_NOTES = frozenset({'difficult', 'below_min_size', 'image_without_objects', 'box_snapped'})


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


class ConversionReport:
    """Counts of a conversion, and by file name everything that was changed or left out.

    Args:
        out_file (str): The COCO JSON file that is written.
        strict (bool): Raise :class:`LaunchError` at the first problem. Notes (difficult flags,
            images without objects, boxes below ``min_size``) never raise.

    Attributes:
        classes (List[str]): Class names in the order of their category ids (from 1).
        num_images (int): Images written.
        num_boxes (int): Boxes written, ignored ones (``iscrowd=1``) included.
        num_ignored (int): Boxes written with ``iscrowd=1``.
        per_class (Counter): Boxes written per class name, ignored ones included.
        findings (List[Finding]): In the order in which they were found.

    Examples:
        >>> report = ConversionReport()
        >>> report.add('box_outside', 'a.xml', 'cat at (900, 3, 950, 9)', 'left out')
        >>> report.count('box_outside'), report.files('box_outside')
        (1, ['a.xml'])
    """

    def __init__(self, out_file: str = '', strict: bool = False) -> None:
        self.classes: List[str] = []
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
            LaunchError: If the report is strict and the finding is a problem.
        """
        self.findings.append(Finding(kind, file, detail, action))
        if self.strict and kind not in _NOTES:
            raise LaunchError(
                f'{file}: {kind.replace("_", " ")}: {detail}. Correct the file, or convert '
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
    def problems(self) -> List[Finding]:
        """List[Finding]: The findings that are not notes."""
        return [f for f in self.findings if f.kind not in _NOTES]

    def to_dict(self) -> Dict[str, Any]:
        """Return the whole report as JSON-serialisable values; every finding is in it."""
        return {
            'out_file': self.out_file,
            'classes': self.classes,
            'num_images': self.num_images,
            'num_boxes': self.num_boxes,
            'num_ignored': self.num_ignored,
            'num_problems': len(self.problems),
            'per_class': {c: self.per_class[c] for c in self.classes},
            'findings': {k: [f._asdict() for f in self.of_kind(k)] for k in self.kinds},
        }

    def __str__(self) -> str:
        """Format tables for the terminal: boxes per class, and findings by kind."""
        boxes = [['class', 'boxes'], *([c, self.per_class[c]] for c in self.classes)]
        text = (
            f'{self.num_images} images, {self.num_boxes} boxes ({self.num_ignored} of them '
            f'ignored: iscrowd=1) -> {self.out_file}\n{AsciiTable(boxes).table}'
        )
        if not self.findings:
            return text + '\nnothing was changed or left out'
        rows = [['found', '', 'times', 'files', 'done']]
        for kind in self.kinds:
            label = 'note' if kind in _NOTES else 'problem'
            done = '; '.join(sorted({f.action for f in self.of_kind(kind)}))
            rows.append([kind, label, str(self.count(kind)), str(len(self.files(kind))), done])
        lines = [text, AsciiTable(rows).table]
        for kind in self.kinds:
            found = [] if kind in _NOTES else self.of_kind(kind)
            lines += [f'  {f.file}: {kind}: {f.detail}' for f in found[:_PROBLEMS_SHOWN]]
            if len(found) > _PROBLEMS_SHOWN:
                lines.append(f'  … {len(found)} in all: save the report as JSON to see them')
        return '\n'.join(lines)


class RawBox(NamedTuple):
    """A box as read: class name, corners in pixels, and whether it is to be ignored."""

    name: str
    corners: Box
    ignore: bool = False


class RawImage(NamedTuple):
    """An image as read, with the file that its findings are reported under."""

    file_name: str
    width: int
    height: int
    boxes: List[RawBox]
    source: str


def write_coco(
    images: Sequence[RawImage],
    classes: Sequence[str],
    report: ConversionReport,
    out_json: PathLike,
    min_size: float = 0,
) -> ConversionReport:
    """Check the boxes and write the COCO file.

    Args:
        images (Sequence[RawImage]): Images with boxes in pixels, (x1, y1, x2, y2).
        classes (Sequence[str]): Class names, each once; their category ids count from 1.
        report (ConversionReport): Counts and findings are added to it.
        out_json (str | PathLike): The file to write.
        min_size (float): Boxes with a side below this many pixels are written with ``iscrowd=1``.

    Returns:
        ConversionReport: The report.

    Raises:
        LaunchError: If a class is given twice, or a string in place of a list, or if there is no
            image.
    """
    if isinstance(classes, str) or len(set(classes)) < len(classes):
        raise LaunchError(f'classes is {classes!r}: give a list of names, each once.')
    if not images:
        lost = [f for f in report.findings if f.action == 'image left out']
        why = f' of {len(lost)}, such as {lost[0].file}: {lost[0].detail}' if lost else ''
        raise LaunchError(f'no image is left{why}; nothing is written.')
    category = {name: index + 1 for index, name in enumerate(classes)}
    report.classes = list(classes)
    coco: Dict[str, Any] = {
        'info': {'description': 'converted by mmdet_contrast'},
        'images': [],
        'annotations': [],
        'categories': [{'id': category[c], 'name': c, 'supercategory': ''} for c in classes],
    }
    seen: Dict[str, str] = {}
    # sorted, so that the ids do not depend on the order of the input
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
            values = _values(box, image, category, report, min_size)
            if values is None:
                continue
            signature = (box.name, tuple(values['bbox']))
            if signature in kept:
                report.add('duplicate_box', image.source, _describe(box), 'kept')
            kept.add(signature)
            number = len(coco['annotations']) + 1
            coco['annotations'].append(
                dict(id=number, image_id=image_id, category_id=category[box.name], **values)
            )
            report.num_ignored += values['iscrowd']
            report.per_class[box.name] += 1
        if not kept:
            detail = f'{len(image.boxes)} were read' if image.boxes else 'none annotated'
            report.add('image_without_objects', image.source, detail, 'image kept')
    report.num_images, report.num_boxes = len(coco['images']), len(coco['annotations'])
    write_json(out_json, coco)
    return report


def _values(
    box: RawBox,
    image: RawImage,
    category: Dict[str, int],
    report: ConversionReport,
    min_size: float,
) -> Optional[Dict[str, Any]]:
    """Give what an annotation says of a box, or report why there is none."""
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
        report.add(kind, image.source, detail, 'clipped to the picture')
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, image.width), min(y2, image.height)
    width, height = x2 - x1, y2 - y1
    if min(width, height) < _THINNEST:
        report.add('box_below_one_pixel', image.source, detail, 'left out')
        return None
    ignore = box.ignore
    if min(width, height) < min_size:
        report.add('below_min_size', image.source, detail, 'ignored: iscrowd=1')
        ignore = True
    # Only iscrowd: CocoDataset drops an annotation with 'ignore', so its region would be trained
    # and evaluated as background.
    return dict(
        bbox=[_tidy(v) for v in (x1, y1, width, height)],
        area=_tidy(width * height),
        iscrowd=int(ignore),
    )


def _tidy(value: float) -> Union[int, float]:
    value = round(float(value), 4)
    return int(value) if value.is_integer() else value


def _describe(box: RawBox) -> str:
    return f'{box.name} at ({", ".join(f"{value:g}" for value in box.corners)})'


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
        '--missing-annotations',
        choices=['leave_out', 'empty'],
        default='leave_out',
        help='leave out images without an annotation file (default), or keep them without boxes',
    )
    parser.add_argument('--strict', action='store_true', help='stop at the first problem')
    parser.add_argument('--report', help='also write the whole report to this JSON file')
    args = vars(parser.parse_args())
    report_json = args.pop('report')
    with errors_in_one_line(parser):
        report = convert(**args)
    if report_json:
        write_json(report_json, report.to_dict(), indent=1)
    print(report)
