"""Compare configs: the same seeds for each, and what differs between them."""

import json
from math import isfinite, nan, sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from terminaltables import GithubFlavoredMarkdownTable

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike

from .runs import RunResult, Variant, run_variants

_CLASS_SUFFIX = '_precision'


class Statistic(NamedTuple):
    """A metric of one config over the seeds, in per cent."""

    mean: float
    std: Optional[float]
    """Sample standard deviation; None with one seed."""
    difference: Optional[float]
    """Mean of (this config − the first config), seed by seed; None for the first config."""
    interval: Optional[Tuple[float, float]]
    """95 % confidence interval of ``difference`` (Student's t); None with one seed."""


class Comparison(NamedTuple):
    """Results of several configs, each with the same seeds."""

    runs: Dict[str, List[RunResult]]
    """Name → results in the order of the seeds."""
    seeds: List[int]
    split: str = 'val'

    @property
    def metrics(self) -> List[str]:
        """list[str]: Names of all metrics, those of single classes last."""
        names = dict.fromkeys(
            key for results in self.runs.values() for result in results for key in result.metrics
        )
        return sorted(names, key=lambda name: name.endswith(_CLASS_SUFFIX))

    def values(self, name: str, metric: str) -> List[float]:
        """Return a metric of a config by seed.

        Args:
            name (str): Of the config.
            metric (str): For example ``'bbox_mAP'``.

        Returns:
            list[float]: In per cent. NaN where the metric has no value, for which COCO's
            evaluation gives -1; 0 where it returned no metric, because nothing was detected.
        """
        found = [
            result.metrics.get(metric, nan) if result.metrics else 0.0 for result in self.runs[name]
        ]
        return [nan if value == -1 else 100 * value for value in found]

    def statistic(self, name: str, metric: str) -> Optional[Statistic]:
        """Summarise a metric of a config; seeds without a value are left out.

        Args:
            name (str): Of the config.
            metric (str): For example ``'bbox_mAP'``.

        Returns:
            Statistic: None if no seed has a value.
        """
        first = next(iter(self.runs))
        own = self.values(name, metric)
        known = [value for value in own if isfinite(value)]
        if not known:
            return None
        difference, interval = None, None
        pairs = zip(own, self.values(first, metric))
        changes = [a - b for a, b in pairs if isfinite(a) and isfinite(b)]
        if name != first and changes:
            difference = mean(changes)
            if len(changes) > 1:
                # only here, as it takes a second to load
                from scipy.stats import t

                half = t.ppf(0.975, len(changes) - 1) * stdev(changes) / sqrt(len(changes))
                interval = (difference - half, difference + half)
        spread = stdev(known) if len(known) > 1 else None
        return Statistic(mean(known), spread, difference, interval)

    def step_time(self, name: str) -> Optional[float]:
        """Return the mean over the seeds of the median time of a training step.

        Args:
            name (str): Of the config.

        Returns:
            float: In seconds; None if no run logged it.
        """
        times = [run.step_time for run in self.runs[name] if run.step_time is not None]
        return mean(times) if times else None

    def to_markdown(self) -> str:
        """Lay out the comparison as Markdown tables.

        Returns:
            str: A table of means, and one of differences if there are several configs.
        """
        names, metrics = list(self.runs), self.metrics
        first, times = names[0], {name: self.step_time(name) for name in self.runs}
        seeds = ', '.join(map(str, self.seeds))
        rows = [['', *names]]
        rows += [
            [_title(m), *(_show_mean(self.statistic(name, m)) for name in names)] for m in metrics
        ]
        rows += [['ms per step', *(f'{1000 * t:.0f}' if t else '-' for t in times.values())]]
        text = f'{self.split} split, per cent, mean ± standard deviation over seeds {seeds}:\n\n'
        text += GithubFlavoredMarkdownTable(rows).table
        if names[1:]:
            rows = [['', *names[1:]]]
            rows += [
                [_title(m), *(_show_difference(self.statistic(name, m)) for name in names[1:])]
                for m in metrics
            ]
            ratios = [t / times[first] if t and times[first] else None for t in times.values()]
            rows += [['ms per step', *(f'× {x:.2f}' if x else '-' for x in ratios[1:])]]
            text += (
                f'\n\nDifference to {first}, same seed minus same seed, with its 95 % confidence '
            )
            text += f'interval:\n\n{GithubFlavoredMarkdownTable(rows).table}'
        return text

    def to_dict(self) -> Dict[str, Any]:
        """Collect everything for JSON.

        Returns:
            dict: ``split``, ``seeds``, ``values`` (name → metric → value by seed, None where there
            is none), ``statistics`` (name → metric → fields of :class:`Statistic`), all in per
            cent, and ``step_time`` (name → seconds by seed).
        """
        metrics = self.metrics
        values = {name: {m: self.values(name, m) for m in metrics} for name in self.runs}
        statistics = {name: {m: self.statistic(name, m) for m in metrics} for name in self.runs}
        return dict(
            split=self.split,
            seeds=self.seeds,
            values={
                name: {m: [x if isfinite(x) else None for x in found] for m, found in rows.items()}
                for name, rows in values.items()
            },
            statistics={
                name: {m: found._asdict() if found else None for m, found in rows.items()}
                for name, rows in statistics.items()
            },
            step_time={name: [run.step_time for run in runs] for name, runs in self.runs.items()},
        )

    def plot(self, out_file: Union[str, Path]) -> None:
        """Draw the mean of every metric and class, with the standard deviation as an error bar.

        Args:
            out_file (str | Path): PNG to write.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # one below the other: names of classes can be long, and many
        metrics, count = self.metrics, len(self.runs)
        height = 1.3 + 0.2 * count + len(metrics) * (0.15 + 0.15 * count)
        figure = Figure(figsize=(6, height), layout='constrained')
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        for number, name in enumerate(self.runs):
            shift = 0.7 * ((number + 0.5) / count - 0.5)
            found = [(y, self.statistic(name, metric)) for y, metric in enumerate(metrics)]
            axis.errorbar(
                [s.mean for _, s in found if s],
                [y + shift for y, s in found if s],
                xerr=[s.std or 0.0 for _, s in found if s],
                fmt='o',
                markersize=4,
                capsize=3,
                color=f'C{number % 10}',
                label=name,
            )
        axis.set_yticks(
            range(len(metrics)), [_title(metric).replace('$', r'\$') for metric in metrics]
        )
        axis.set_ylim(len(metrics), -1)
        axis.set_xlabel('per cent')
        axis.grid(alpha=0.3)
        figure.legend(loc='outside upper left', fontsize=8)
        figure.savefig(str(out_file), dpi=120)

    def save(self, folder: Union[str, Path]) -> None:
        """Write ``compare.md``, ``compare.json`` and ``compare.png``.

        Args:
            folder (str | Path): Where to.
        """
        folder = Path(folder)
        (folder / 'compare.md').write_text(self.to_markdown() + '\n', encoding='utf-8')
        (folder / 'compare.json').write_text(json.dumps(self.to_dict(), indent=1) + '\n')
        self.plot(folder / 'compare.png')


def compare(
    configs: Sequence[PathLike],
    work_dir: Union[str, Path],
    seeds: Sequence[int] = (0, 1, 2),
    jobs: int = 1,
    split: str = 'val',
    variants: Optional[Mapping[str, Variant]] = None,
    cfg_options: Optional[Mapping[str, Any]] = None,
) -> Comparison:
    """Train and evaluate configs with the same seeds, and compare them with the first one.

    Each run is a process of its own with ``work_dir/<config stem>/seed<seed>`` as its work
    directory. A finished run is not repeated, an interrupted one is resumed.

    Args:
        configs (Sequence[str | Path]): Config files; their stems are the names.
        work_dir (str | Path): For the runs, and for ``compare.md``, ``compare.json`` and
            ``compare.png``.
        seeds (Sequence[int]): Seeds of every config.
        jobs (int): Processes at a time; the cores are divided among them. Times of a step are
            comparable with 1.
        split (str): ``'val'`` or ``'test'``: which data loader and evaluator of the config.
        variants (Mapping[str, tuple], optional): More configs, with names and options of their
            own: name → (config file, dotted options).
        cfg_options (Mapping[str, Any], optional): Dotted config keys and new values for all.

    Returns:
        Comparison: The results, those of ``configs`` first.

    Raises:
        LaunchError: If a config does not exist, two have one name, or a run fails; see also
            :func:`run_variants`.

    Example:
        >>> found = compare(
        ...     ['plain.py', 'contrast.py'], 'work_dirs/compare',
        ...     variants={'lr 0.001': ('contrast.py', {'optim_wrapper.optimizer.lr': 1e-3})})
        >>> found.statistic('contrast', 'bbox_mAP').interval
    """
    options = dict(cfg_options or {})
    pairs: List[Tuple[str, PathLike, Mapping[str, Any]]]
    pairs = [(Path(config).stem, config, {}) for config in configs]
    pairs += [(name, config, own) for name, (config, own) in (variants or {}).items()]
    named: Dict[str, Variant] = {}
    for name, config, own in pairs:
        if name in named:
            raise LaunchError(
                f'{named[name][0]} and {config} are both called {name!r}: give one of them another '
                'name (--variant NAME CONFIG).'
            )
        named[name] = (config, {**options, **own})
    seeds = list(seeds)
    result = Comparison(run_variants(named, work_dir, seeds, jobs, split), seeds, split)
    result.save(work_dir)
    return result


def _title(metric: str) -> str:
    """Return how a metric is called in tables and pictures."""
    if metric.endswith(_CLASS_SUFFIX):
        return f'AP {metric[: -len(_CLASS_SUFFIX)]}'
    return metric


def _show_mean(found: Optional[Statistic]) -> str:
    if found is None:
        return '-'
    return f'{found.mean:.1f} ± ' + ('-' if found.std is None else f'{found.std:.1f}')


def _show_difference(found: Optional[Statistic]) -> str:
    if found is None or found.difference is None:
        return '-'
    interval = '-' if found.interval is None else '{:+.1f}, {:+.1f}'.format(*found.interval)
    return f'{found.difference:+.1f} [{interval}]'
