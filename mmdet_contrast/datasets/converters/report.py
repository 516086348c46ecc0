"""What a conversion did: counts, and by name everything that was not taken as it stood."""

import os
from collections import Counter
from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Union

__all__ = ['ConversionError', 'ConversionReport', 'Finding']

_NAMES_SHOWN = 3

# Notes describe the data and are expected in a clean set; everything else is a problem, on which a
# strict conversion stops.
_NOTES = frozenset({'difficult', 'below_min_size', 'image_without_objects', 'box_snapped'})


class ConversionError(ValueError):
    """Raised by a strict conversion at the first problem."""


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
                f'{finding.file}: {kind.replace("_", " ")}: {detail}. Mend the file, or convert '
                f'without strict, which would have continued ({action}).'
            )

    def of_kind(self, kind: str) -> List[Finding]:
        """Findings of one kind, in the order in which they were found."""
        return [f for f in self.findings if f.kind == kind]

    def count(self, kind: str) -> int:
        """Number of findings of one kind."""
        return len(self.of_kind(kind))

    def files(self, kind: str) -> List[str]:
        """Names of the files with findings of one kind, sorted, each once."""
        return sorted({f.file for f in self.findings if f.kind == kind})

    @property
    def kinds(self) -> List[str]:
        """List[str]: Kinds found, sorted, problems before notes."""
        return sorted({f.kind for f in self.findings}, key=lambda k: (k in _NOTES, k))

    @property
    def num_problems(self) -> int:
        """int: Number of findings that are not notes."""
        return sum(not f.is_note for f in self.findings)

    def to_dict(self) -> Dict[str, Any]:
        """The whole report as JSON-serialisable values; every finding is in it."""
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

    def save(self, path: Union[str, 'os.PathLike[str]']) -> None:
        """Write the whole report to a JSON file, atomically.

        Args:
            path (str or PathLike): The file to write.
        """
        from ._coco import write_json

        write_json(path, self.to_dict(), indent=1)

    def __str__(self) -> str:
        """A table for the terminal: totals, boxes per class, findings with the first names."""
        lines = [
            f'{self.num_images} images, {self.num_boxes} boxes '
            f'({self.num_ignored} of them ignored: iscrowd=1)'
            + (f' -> {self.out_file}' if self.out_file else '')
        ]
        rows = [(name, str(self.per_class[name])) for name in self.classes]
        lines += _table(('class', 'boxes'), rows)
        if not self.findings:
            return '\n'.join(lines + ['nothing was changed or left out'])
        rows = []
        for kind in self.kinds:
            found = self.of_kind(kind)
            actions = '; '.join(sorted({f.action for f in found}))
            label = 'note' if kind in _NOTES else 'problem'
            rows.append((kind, label, str(len(found)), actions, _names(self.files(kind))))
        lines += _table(('found', '', 'times', 'done', 'in'), rows)
        for finding in self.findings:
            if not finding.is_note:
                lines.append(f'  {finding.file}: {finding.kind}: {finding.detail}')
                if len(lines) > 40:
                    lines.append('  … (save the report as JSON for all of them)')
                    break
        return '\n'.join(lines)

    def __repr__(self) -> str:
        """The totals only."""
        return (
            f'{type(self).__name__}(images={self.num_images}, boxes={self.num_boxes}, '
            f'problems={self.num_problems})'
        )


def _names(files: List[str]) -> str:
    shown = ', '.join(files[:_NAMES_SHOWN])
    more = len(files) - _NAMES_SHOWN
    return f'{shown} … and {more} more' if more > 0 else shown


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> List[str]:
    rows = list(rows)
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    return [
        '  ' + '  '.join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
        for row in [header, *rows]
    ]
