"""What an addition of classes has kept and learnt: table, JSON and picture."""

import json
from math import isfinite, nan
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Sequence, Tuple, Union

from terminaltables import GithubFlavoredMarkdownTable


class AdditionResult(NamedTuple):
    """A detector with more classes, and its AP beside that of the detector before.

    The AP are those of ``BaseNovelCocoMetric``, here in per cent. All of them are NaN if there was
    nothing to evaluate on, and that of a class is if the validation data have no object of it. If
    nothing was detected, all are 0.
    """

    checkpoint: str
    """Weights of the detector with all classes."""
    config: str
    """Its plain config."""
    old_classes: Tuple[str, ...]
    new_classes: Tuple[str, ...]
    metrics_before: Mapping[str, float]
    """What the metric returned for the detector before, without the prefix ``coco/``."""
    metrics_after: Mapping[str, float]
    """What it returned for the detector with all classes."""

    @property
    def before(self) -> Dict[str, float]:
        """dict[str, float]: AP of each old class before the addition, in per cent."""
        return _class_aps(self.metrics_before, self.old_classes)

    @property
    def after(self) -> Dict[str, float]:
        """dict[str, float]: AP of each class after the addition, in per cent."""
        return _class_aps(self.metrics_after, (*self.old_classes, *self.new_classes))

    @property
    def old_before(self) -> float:
        """float: Mean AP of the old classes before the addition, in per cent."""
        return _per_cent(self.metrics_before, 'base_mAP')

    @property
    def old(self) -> float:
        """float: Mean AP of the old classes after the addition, in per cent."""
        return _per_cent(self.metrics_after, 'base_mAP')

    @property
    def new(self) -> float:
        """float: Mean AP of the new classes: what was learnt, in per cent."""
        return _per_cent(self.metrics_after, 'novel_mAP')

    @property
    def harmonic(self) -> float:
        """float: Harmonic mean of the AP of old and of new classes, in per cent."""
        return _per_cent(self.metrics_after, 'harmonic_mAP')

    @property
    def kept(self) -> float:
        """float: AP of the old classes in per cent of what it was before."""
        return 100 * self.old / self.old_before if self.old_before else nan

    def to_markdown(self) -> str:
        """Lay out the result.

        Returns:
            str: A Markdown table of all classes and the means, and a line on what was kept.
        """
        if not self.metrics_after:
            return 'Nothing was measured: no validation data were given.'
        rows = [['AP in %', 'before', 'after']]
        before = self.before
        for name, value in self.after.items():
            rows.append([name, _show(before[name]) if name in before else 'new', _show(value)])
        rows.append(['**old classes**', _show(self.old_before), _show(self.old)])
        rows.append(['**new classes**', '', _show(self.new)])
        rows.append(['harmonic mean', '', _show(self.harmonic)])
        if isfinite(self.kept):
            text = f'Kept: {self.kept:.1f} % of the AP of the old classes.'
        elif isfinite(self.old_before):
            text = 'The detector found none of the old classes before the addition.'
        else:
            text = (
                'What was kept cannot be measured: the validation data annotate none of the old '
                'classes.'
            )
        return f'{GithubFlavoredMarkdownTable(rows).table}\n\n{text}'

    def to_dict(self) -> Dict[str, Any]:
        """Collect everything for JSON.

        Returns:
            dict: ``checkpoint``, ``config``, ``old_classes``, ``new_classes``, and in per cent
            ``before`` and ``after`` by class, ``old_before``, ``old``, ``new``, ``harmonic`` and
            ``kept``; None where there is no value.
        """
        keys = ('old_before', 'old', 'new', 'harmonic', 'kept')
        return dict(
            checkpoint=self.checkpoint,
            config=self.config,
            old_classes=list(self.old_classes),
            new_classes=list(self.new_classes),
            before=_for_json(self.before),
            after=_for_json(self.after),
            **_for_json({key: getattr(self, key) for key in keys}),
        )

    def plot(self, out_file: Union[str, Path]) -> None:
        """Draw the AP of each class and of both groups, before and after.

        Args:
            out_file (str | Path): PNG to write.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        old, new = self.old_classes, self.new_classes
        before = {**self.before, 'mean of old classes': self.old_before}
        means = {'mean of old classes': self.old, 'mean of new classes': self.new}
        after = {**self.after, **means}
        # the means stand apart
        places = {name: y + 0.6 * (name in means) for y, name in enumerate(after)}
        figure = Figure(figsize=(7, 1.6 + 0.36 * len(after)), layout='constrained')
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        for label, values, names, shift, colour in (
            ('before', before, before, -0.2, '0.7'),
            ('after, old classes', after, (*old, 'mean of old classes'), 0.2, 'C0'),
            ('after, new classes', after, (*new, 'mean of new classes'), 0, 'C1'),
        ):
            known = {places[name] + shift: values[name] for name in names if isfinite(values[name])}
            widths = list(known.values())
            bars = axis.barh(list(known), widths, height=0.38, color=colour, label=label)
            axis.bar_label(bars, fmt='%.1f', padding=2, fontsize=8)
        # a dollar sign would begin a formula
        axis.set_yticks(list(places.values()), [name.replace('$', r'\$') for name in places])
        axis.set_ylim(max(places.values()) + 0.6, -0.6)
        axis.margins(x=0.1)
        axis.set_xlabel('AP in per cent')
        if isfinite(self.kept):
            axis.set_title(f'{self.kept:.1f} % of the old AP kept', fontsize=11)
        axis.grid(axis='x', alpha=0.3)
        axis.set_axisbelow(True)
        figure.legend(loc='outside lower center', ncols=3, fontsize=8)
        figure.savefig(str(out_file), dpi=120)

    def save(self, folder: Union[str, Path]) -> None:
        """Write ``result.md``, ``result.json``, and ``result.png`` if anything was measured.

        Args:
            folder (str | Path): Where to.
        """
        folder = Path(folder)
        (folder / 'result.md').write_text(self.to_markdown() + '\n', encoding='utf-8')
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        (folder / 'result.json').write_text(text + '\n', encoding='utf-8')
        if self.metrics_after:
            self.plot(folder / 'result.png')


def _per_cent(metrics: Mapping[str, float], key: str) -> float:
    return 100 * metrics.get(key, nan)


def _class_aps(metrics: Mapping[str, float], classes: Sequence[str]) -> Dict[str, float]:
    return {name: _per_cent(metrics, f'{name}_precision') for name in classes}


def _for_json(values: Mapping[str, float]) -> Dict[str, Any]:
    return {key: value if isfinite(value) else None for key, value in values.items()}


def _show(value: float) -> str:
    return f'{value:.1f}' if isfinite(value) else '-'
