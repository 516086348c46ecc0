"""Curves of the losses and of the validation AP, from MMEngine's JSON logs."""

import json
import os
import os.path as osp
from dataclasses import dataclass, field
from glob import escape, glob
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

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
        val (list[dict]): Validation records; ``step`` is the iteration at which they were taken,
            ``epoch`` what MMEngine counts validations by.
    """

    name: str
    train: List[Dict[str, float]] = field(default_factory=list)
    val: List[Dict[str, float]] = field(default_factory=list)

    def keys(self) -> List[str]:
        """Return the names of the logged values, of training first."""
        names = dict.fromkeys(key for record in [*self.train, *self.val] for key in record)
        return [name for name in names if name not in ('step', 'epoch', 'iter')]


def series(records: Sequence[Dict[str, float]], key: str) -> Tuple[np.ndarray, np.ndarray]:
    """Return iterations and values at which a value was logged.

    Args:
        records (Sequence[dict]): Records of training or validation.
        key (str): Name of the value.

    Returns:
        tuple[ndarray, ndarray]: (N,) iterations and (N,) values.
    """
    own = [record for record in records if key in record]
    return np.array([x['step'] for x in own], float), np.array([x[key] for x in own], float)


def read_run(path: str, skip_epochs: int = 0) -> RunLog:
    """Read the log of a run, interrupted and resumed runs included.

    Args:
        path (str): A work directory (all its ``*/vis_data/scalars.json`` are joined in the order
            of time; of what a resumed run repeats, the earlier records are dropped), a folder of
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
        for record in _read_lines(file):
            if 'iter' in record:
                train.append(record)
            elif 'step' in record:
                # Validation is written with an epoch (or an iteration) of its own; the records
                # above it tell the iteration.
                step = train[-1]['step'] if train else 0
                val.append({**record, 'epoch': record['step'], 'step': step})
        if not train:
            continue
        first = train[0]['step']
        # A record at `first` stands for the iterations up to it, so earlier records that share an
        # epoch with it remain only when they lie before it.
        run.train = [record for record in run.train if record['step'] < first] + train
        run.val = [record for record in run.val if record['step'] < first] + val
    if skip_epochs:
        if any('epoch' not in record for record in run.train):
            raise LaunchError(f'{path!r} counts iterations, not epochs: leave out --skip-epochs.')
        run.val = [record for record in run.val if record['epoch'] > skip_epochs]
        run.train = [record for record in run.train if record['epoch'] > skip_epochs]
    if not run.train:
        raise LaunchError(
            f'no training record in {", ".join(files)} after {skip_epochs} epochs: was the run '
            'stopped before its first log line (default_hooks.logger.interval)?'
        )
    return run


def _read_lines(file: str) -> Iterator[Dict[str, float]]:
    with open(file, encoding='utf-8') as stream:
        for line in filter(str.strip, stream):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                # A killed process can leave half a line behind, and nothing after it.
                if next(stream, None):
                    raise


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Compute the mean of each value and those before it, at most ``window`` of them.

    A value that is not finite is left out of the means of others, and stays as it is.

    Args:
        values (ndarray): (N,) values.
        window (int): Number of values to average, at least 1.

    Returns:
        ndarray: (N,) averages; the first ones are over as many values as there are.
    """
    averages = np.array(values, dtype=float)
    for place in np.flatnonzero(np.isfinite(values)):
        near = values[max(place + 1 - window, 0) : place + 1]
        averages[place] = near[np.isfinite(near)].mean()
    return averages


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
    from matplotlib.figure import Figure

    logs = [read_run(run, skip_epochs) for run in runs]
    if len({log.name for log in logs}) < len(logs):
        for log, path in zip(logs, runs):
            log.name = os.fspath(path)
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
    for pattern in ('scalars.json', 'vis_data/scalars.json', '*/vis_data/scalars.json'):
        # The folders are named by time stamp, so their order is that of time.
        files = sorted(glob(osp.join(escape(os.fspath(path)), pattern)))
        if files:
            return files
    raise FileNotFoundError(
        f'no log under {path!r}: give a work directory that holds '
        'TIME_STAMP/vis_data/scalars.json, or a scalars.json.'
    )


def _default_panels(known: Sequence[str], many_logs: bool) -> Dict[str, List[str]]:
    contrast = [key for key in known if key.startswith('loss_contrast')]
    losses = [key for key in known if 'loss' in key and key not in contrast]
    ap = [key for key in known if key.endswith(('mAP', 'mAP_50'))]
    if many_logs:
        return {key: [key] for key in [*losses, *contrast, *ap]}
    panels = {'losses': losses, 'contrastive loss, per level': contrast, 'validation AP': ap}
    return {title: names for title, names in panels.items() if names}


def _draw_series(
    axis: Any, log: RunLog, key: str, colour: str, many_keys: bool, many_logs: bool, smooth: int
) -> None:
    short = key.replace('loss_contrast_', '').replace('coco/', '').replace('bbox_', '')
    # With one key its name is the title; one run alone still needs something in the legend.
    name = ' '.join([log.name] * many_logs + [short] * (many_keys or not many_logs))
    # older matplotlib leaves such names out of the legend
    name = f'run {name}' if name.startswith('_') else name
    for records in (log.train, log.val):
        steps, values = series(records, key)
        if not len(steps):
            continue
        validation = records is log.val
        beside = validation and any(key in record for record in log.train)
        label = name + (', validation' if beside else '')
        label += '' if np.isfinite(values).any() else ' (not finite)'
        if not validation:
            if smooth > 1:
                axis.plot(steps, values, color=colour, alpha=0.2, linewidth=0.7)
            values = moving_average(values, smooth)
        axis.plot(
            steps,
            values,
            '--' if beside else '-',
            # a line needs two values
            marker='o' if validation or np.isfinite(values).sum() == 1 else None,
            markersize=4,
            label=label,
            color=colour,
            linewidth=1.4,
        )
