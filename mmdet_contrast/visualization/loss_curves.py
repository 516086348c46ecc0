"""Curves of the losses and of the validation AP, from MMEngine's JSON logs."""

import json
import os
import os.path as osp
from dataclasses import dataclass, field
from glob import escape, glob
from typing import Dict, List, Optional, Sequence

import numpy as np
from mmengine.utils import mkdir_or_exist

from mmdet_contrast.utils.config import LaunchError


@dataclass
class RunLog:
    """What one run logged.

    Attributes:
        name (str): Label of the run in a picture.
        train (list[dict]): Training records in the order of their iteration; each has ``step`` (the
            iteration, from 1), ``epoch`` in an epoch-based run, and the logged values.
        val (list[dict]): Validation records; ``step`` is the iteration at which they were taken.
    """

    name: str
    train: List[Dict[str, float]] = field(default_factory=list)
    val: List[Dict[str, float]] = field(default_factory=list)

    def keys(self) -> List[str]:
        """Return the names of the logged values, of training first."""
        names: Dict[str, None] = {}
        for record in [*self.train, *self.val]:
            names.update(dict.fromkeys(key for key in record if key not in _COUNTERS))
        return list(names)

    def series(self, key: str, split: Optional[str] = None) -> 'tuple[np.ndarray, np.ndarray]':
        """Return iterations and values at which ``key`` was logged.

        Args:
            key (str): Name of a logged value.
            split (str, optional): ``'train'`` or ``'val'``. Defaults to training, or to validation
                where training did not log it.

        Returns:
            tuple[ndarray, ndarray]: (N,) iterations and (N,) values.
        """
        for name, records in (('train', self.train), ('val', self.val)):
            points = [(r['step'], r[key]) for r in records if key in r]
            if points and split in (None, name):
                steps, values = zip(*points)
                return np.asarray(steps, float), np.asarray(values, float)
        return np.empty(0), np.empty(0)


_COUNTERS = ('step', 'epoch', 'iter')


def read_run(path: str, skip_epochs: int = 0) -> RunLog:
    """Read the log of a run, interrupted and resumed runs included.

    Args:
        path (str): A work directory (all its ``*/vis_data/scalars.json`` are joined in the order
            of time; where a resumed run repeats iterations, the later record counts), a folder of
            one run, or a ``scalars.json``.
        skip_epochs (int): Epochs to leave out at the beginning. Defaults to 0.

    Returns:
        RunLog: Records of training and validation.

    Raises:
        FileNotFoundError: If there is no log under ``path``.
        LaunchError: If no training record is left.
    """
    files = _find_logs(path)
    run = RunLog(osp.basename(osp.normpath(path)))
    for file in files:
        train, val = [], []
        with open(file, encoding='utf-8') as stream:
            for line in stream:
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    # A killed process can leave half a line behind, and nothing after it.
                    if stream.readline():
                        raise
                    break
                if 'iter' in record:
                    train.append(record)
                elif 'step' in record:
                    # Validation is written with an epoch (or an iteration) of its own; the records
                    # above it tell the iteration.
                    val.append((len(train), record))
        if not train:
            continue
        first = train[0]['step']
        # A record at `first` stands for the iterations up to it, so earlier records that share an
        # epoch with it remain only when they lie before it.
        run.train = [record for record in run.train if record['step'] < first]
        run.val = [record for record in run.val if record['step'] < first]
        run.train += train
        for count, record in val:
            step = train[count - 1]['step'] if count else first
            run.val.append({**record, 'val_step': record['step'], 'step': step})
    if skip_epochs:
        run.val = [r for r in run.val if r['val_step'] > skip_epochs]
        run.train = [r for r in run.train if r['epoch'] > skip_epochs]
    if not run.train:
        raise LaunchError(
            f'no training record in {", ".join(files)} after {skip_epochs} epochs: was the run '
            'stopped before its first log line (default_hooks.logger.interval)?'
        )
    for record in run.val:
        record.pop('val_step')
    return run


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Compute the mean of each value and those before it, at most ``window`` of them.

    A value that is not finite is left out of the means of others, and stays as it is.

    Args:
        values (ndarray): (N,) values.
        window (int): Number of values to average.

    Returns:
        ndarray: (N,) averages; the first ones are over as many values as there are.
    """
    finite = np.isfinite(values)
    sums = np.cumsum(np.concatenate([[0.0], np.where(finite, values, 0.0)]))
    counts = np.cumsum(np.concatenate([[0], finite]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - max(window, 1), 0)
    means = (sums[ends] - sums[starts]) / np.maximum(counts[ends] - counts[starts], 1)
    return np.where(finite, means, values)


def plot_losses(
    runs: Sequence[str],
    out_file: str,
    keys: Optional[Sequence[str]] = None,
    smooth: int = 1,
    skip_epochs: int = 0,
) -> str:
    """Draw losses and validation AP of one or several runs against the iteration.

    Args:
        runs (Sequence[str]): What :func:`read_run` takes, one per run.
        out_file (str): PNG to write; its folder is made if absent.
        keys (Sequence[str], optional): Values to draw, each in a panel of its own. Defaults to
            every loss, and every validation value that ends in ``mAP`` or ``mAP_50``: of one run in
            three panels (losses, ``loss_contrast_*``, AP), of several in a panel for each value. A
            value that both training and validation log is drawn as two curves, that of validation
            dashed.
        smooth (int): Moving average over this many training records. Defaults to 1 (none).
        skip_epochs (int): Epochs to leave out at the beginning. Defaults to 0.

    Returns:
        str: ``out_file``.

    Raises:
        FileNotFoundError: If a run has no log.
        LaunchError: If no run logged one of ``keys`` (the message lists what was logged), or a run
            has no training record.

    Example:
        >>> plot_losses(['work_dirs/retina_contrast_shapes'], 'losses.png', smooth=5)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    logs = [read_run(run, skip_epochs) for run in runs]
    _make_names_unique(logs, runs)
    known = list(dict.fromkeys(key for log in logs for key in log.keys()))
    if keys:
        absent = [key for key in keys if key not in known]
        if absent:
            raise LaunchError(f'no run logged {absent}; there are: {", ".join(known)}.')
        panels = {key: [key] for key in keys}
    else:
        panels = _default_panels(known, len(logs) > 1)

    rows = -(-len(panels) // 2) if len(panels) > 3 else 1
    columns = -(-len(panels) // rows)
    figure = Figure(figsize=(5.2 * columns, 3.9 * rows), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, names) in zip(axes, panels.items()):
        for number, name in enumerate(names):
            for run_number, log in enumerate(logs):
                # A run keeps its colour in all panels, also where another did not log the value.
                colour = f'C{(run_number if len(logs) > 1 else number) % 10}'
                _draw_series(axis, log, name, colour, len(names) > 1, len(logs) > 1, smooth)
        axis.set_title(title)
        axis.set_xlabel('iteration')
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend(fontsize=8)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    mkdir_or_exist(osp.dirname(osp.abspath(out_file)))
    figure.savefig(out_file, dpi=120)
    return out_file


def _find_logs(path: str) -> List[str]:
    if osp.isfile(path):
        return [path]
    patterns = ('scalars.json', 'vis_data/scalars.json', '*/vis_data/scalars.json')
    for pattern in patterns:
        # The folders are named by time stamp, so their order is that of time.
        files = sorted(glob(osp.join(escape(os.fspath(path)), pattern)))
        if files:
            return files
    raise FileNotFoundError(
        f'no log under {path!r}: give a work directory that holds '
        'TIME_STAMP/vis_data/scalars.json, or a scalars.json.'
    )


def _make_names_unique(logs: Sequence[RunLog], runs: Sequence[str]) -> None:
    names = [log.name for log in logs]
    if len(set(names)) < len(names):
        for log, run in zip(logs, runs):
            log.name = os.fspath(run)


def _default_panels(known: Sequence[str], many_logs: bool) -> Dict[str, List[str]]:
    contrast = [key for key in known if key.startswith('loss_contrast')]
    losses = [key for key in known if 'loss' in key and key not in contrast]
    ap = [key for key in known if key.endswith(('mAP', 'mAP_50'))]
    if many_logs:
        return {key: [key] for key in [*losses, *contrast, *ap]}
    panels = {'losses': losses, 'contrastive loss, per level': contrast, 'validation AP': ap}
    return {title: names for title, names in panels.items() if names}


def _draw_series(
    axis: 'object',
    log: RunLog,
    key: str,
    colour: str,
    many_keys: bool,
    many_logs: bool,
    smooth: int,
) -> None:
    short = key.replace('loss_contrast_', '').replace('coco/', '').replace('bbox_', '')
    # With one key its name is the title; one run alone still needs something in the legend.
    label = ' '.join([log.name] * many_logs + [short] * (many_keys or not many_logs))
    style = dict(color=colour, linewidth=1.4)
    steps, values = log.series(key, 'train')
    if len(steps):
        # a line needs two values
        marker = 'o' if np.isfinite(values).sum() == 1 else None
        averages = moving_average(values, smooth)
        own = label + _remark(values)
        axis.plot(steps, averages, marker=marker, markersize=4, label=own, **style)
        if smooth > 1:
            axis.plot(steps, values, color=colour, alpha=0.2, linewidth=0.7)
    val_steps, val_values = log.series(key, 'val')
    if len(val_steps):
        line = '--' if len(steps) else '-'
        label += (', validation' if len(steps) else '') + _remark(val_values)
        axis.plot(val_steps, val_values, line, marker='o', markersize=4, label=label, **style)


def _remark(values: np.ndarray) -> str:
    """Say why a curve is not seen."""
    return '' if np.isfinite(values).any() else ' (not finite)'
