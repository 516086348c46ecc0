"""Train and test configs with several seeds, each run in a process of its own."""

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from mmengine.config import Config
from tqdm import tqdm

from mmdet_contrast.utils.checkpoint import find_resumable
from mmdet_contrast.utils.config import (
    LaunchError,
    config_root,
    config_text,
    load_config,
    type_name,
)
from mmdet_contrast.utils.files import PathLike

Variant = Tuple[PathLike, Mapping[str, Any]]

# Log records at the beginning that say nothing about the time of a step.
_WARM_UP = 3


class RunResult(NamedTuple):
    """What one run reached."""

    metrics: Dict[str, float]
    """As the evaluators returned them, without their prefix (``coco/``) where that leaves different
    names."""
    step_time: Optional[float]
    """Median time of a training step in seconds; None if the run has no ``scalars.json``."""


def run_variants(
    variants: Mapping[str, Variant],
    work_dir: Union[str, Path],
    seeds: Sequence[int],
    jobs: int = 1,
    split: str = 'val',
) -> Dict[str, List[RunResult]]:
    """Train and test every variant with every seed.

    Each run is a process of its own with ``work_dir/<name>/seed<seed>`` as its work directory. A
    finished run is not repeated, an interrupted one is resumed.

    Args:
        variants (Mapping[str, tuple]): Name → config file and dotted options for it.
        work_dir (str | Path): For configs, checkpoints, logs and results.
        seeds (Sequence[int]): Seeds of every variant.
        jobs (int): Processes at a time; the cores are divided among them.
        split (str): ``'val'`` evaluates with ``val_dataloader`` and ``val_evaluator`` of the
            config, ``'test'`` with those of the test.

    Returns:
        dict[str, list[RunResult]]: Name → results in the order of the seeds.

    Raises:
        LaunchError: If a config does not exist, has nothing to evaluate on, or is not the one that
            the run in ``work_dir`` was started with; or if a run fails, and those that wait are not
            started.
    """
    loaded = {
        name: load_config(config, cfg_options=dict(options))
        for name, (config, options) in variants.items()
    }
    runs = [
        _Run(name, seed, cfg, Path(work_dir), split)
        for name, cfg in loaded.items()
        for seed in seeds
    ]
    for run in runs:
        run.check()
    # Each variant's first seed comes first: a variant that fails is seen early.
    waiting = [run for run in runs if not run.result_file.is_file()]
    waiting.sort(key=lambda run: seeds.index(run.seed))
    if waiting:
        _run_all(waiting, len(runs), jobs)
    results: Dict[str, List[RunResult]] = {name: [] for name in variants}
    for run in runs:
        results[run.name].append(RunResult(**json.loads(run.result_file.read_text())))
    return results


class _Run:
    """A variant with a seed."""

    def __init__(self, name: str, seed: int, cfg: Config, work_dir: Path, split: str) -> None:
        self.name = name
        self.seed = seed
        self.split = split
        self.folder = work_dir / name / f'seed{seed}'
        # beside the folder: MMEngine writes a copy under the same name into it
        self.config_file = self.folder.with_name(f'seed{seed}.py')
        self.test_config_file = self.folder.with_name(f'seed{seed}_{split}.py')
        self.result_file = self.folder / f'{split}.json'
        self.cfg = deepcopy(cfg)
        self.cfg.merge_from_dict({'randomness.seed': seed})

    def check(self) -> None:
        """Refuse a config that cannot be evaluated, or is not that of the run on disk."""
        if not self.cfg.get(f'{self.split}_dataloader'):
            raise LaunchError(
                f'config {self.name} has no {self.split}_dataloader to evaluate on: give it one, '
                'or choose another --split.'
            )
        if self.config_file.is_file():
            if Config.fromfile(str(self.config_file)).to_dict() != self.cfg.to_dict():
                raise LaunchError(
                    f'{self.folder} was run with another config or other options (see '
                    f'{self.config_file}): give another --work-dir, or remove both.'
                )

    def prepare(self) -> None:
        """Write the configs that training and testing read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.config_file.is_file():
            self.config_file.write_text(config_text(self.cfg), encoding='utf-8')
        cfg = deepcopy(self.cfg)
        if self.split == 'val':
            cfg.test_dataloader = cfg.val_dataloader
            cfg.test_evaluator = cfg.val_evaluator
            cfg.test_cfg = cfg.get('test_cfg') or dict(type='TestLoop')
        evaluators = cfg.test_evaluator
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            if type_name(evaluator.type) == 'CocoMetric':
                evaluator.classwise = True
        self.test_config_file.write_text(config_text(cfg), encoding='utf-8')

    def train_and_test(self, threads: int) -> None:
        """Run both programs and keep what they found; train on from the last checkpoint."""
        _call(self.folder, 'train.py', [self.config_file, '--resume'], threads)
        checkpoint = str(find_resumable(str(self.folder)))
        _call(self.folder / self.split, 'test.py', [self.test_config_file, checkpoint], threads)
        # the newest of the time stamps, whose folders hold a file of the same name
        written = (self.folder / self.split).glob('*/*.json')
        newest = max(file for file in written if file.stem == file.parent.name)
        found = {
            key: value
            for key, value in json.loads(newest.read_text()).items()
            if isinstance(value, (int, float)) and key not in ('time', 'data_time')
        }
        # only the prefix: the name of a class may hold a slash
        names = {key: key.split('/', 1)[-1] for key in found}
        counts = Counter(names.values())
        metrics = {
            names[key] if counts[names[key]] == 1 else key: value for key, value in found.items()
        }
        result = RunResult(metrics, _step_time(self.folder))
        self.result_file.write_text(json.dumps(result._asdict()))

    def progress(self) -> float:
        """Return the share of the run that is done, from the last record of its log."""
        if self.result_file.is_file():
            return 1.0
        for file in sorted(self.folder.glob('*/vis_data/scalars.json'), reverse=True):
            with open(file, 'rb') as stream:
                stream.seek(max(0, file.stat().st_size - 20000))
                lines = stream.read().decode(errors='ignore').splitlines()
            for line in reversed(lines):
                # training records have both; the last line may be half written
                if '"iter"' not in line or line[0] + line[-1] != '{}':
                    continue
                record, loop = json.loads(line), self.cfg.train_cfg
                for key, total in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
                    if key in record and loop.get(total):
                        return min((record[key] - 1) / loop[total], 1.0)
        return 0.0


def _run_all(runs: Sequence[_Run], total: int, jobs: int) -> None:
    """Execute runs, some at a time, and show how far they are."""
    for run in runs:
        run.prepare()
    threads = max(1, _cores() // jobs)
    errors: List[Exception] = []

    def execute(run: _Run) -> None:
        # else the pool finishes hours of other runs before a failure is seen
        if errors:
            return
        tqdm.write(f'{run.name}, seed {run.seed}: {run.folder / "train.log"}', file=sys.stderr)
        try:
            run.train_and_test(threads)
        except Exception as error:
            errors.append(error)
            tqdm.write(str(error), file=sys.stderr)

    finished = total - len(runs)
    layout = '{percentage:3.0f}%|{bar}| {n:.1f}/{total} runs, {elapsed}, ETA {remaining}'
    bar = tqdm(total=total, initial=finished, bar_format=layout)
    with bar, ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(execute, run) for run in runs]
        pending = {*futures}
        while pending:
            # a file would fill with bars
            pending = wait(futures, 5 if sys.stderr.isatty() else 600).not_done
            bar.n = finished + sum(run.progress() for run in runs)
            bar.refresh()
    if errors:
        raise errors[0]


def _call(folder: Path, tool: str, arguments: Sequence[Union[str, Path]], threads: int) -> None:
    """Run a program of ``tools/``; its output goes to a log in the folder."""
    program = config_root().parent / 'tools' / tool
    command = [sys.executable, str(program), *map(str, arguments), '--work-dir', str(folder)]
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f'{tool[:-3]}.log'
    with open(log, 'w', encoding='utf-8') as stream:
        code = subprocess.call(command, stdout=stream, stderr=subprocess.STDOUT, env=env)
    if code != 0:
        lines = log.read_text(encoding='utf-8').strip().splitlines()
        raise LaunchError(f'{tool} failed for {folder} (see {log}): {lines[-1] if lines else ""}')


def _step_time(folder: Path) -> Optional[float]:
    """Return the median time of a training step in seconds; None without a log of it."""
    # only here, as it loads what draws
    from mmdet_contrast.visualization.loss_curves import read_run

    try:
        records = read_run(str(folder)).train
    except (FileNotFoundError, ValueError):
        return None
    times = [record['time'] for record in records if 'time' in record]
    return median(times[_WARM_UP:] or times) if times else None


def _cores() -> int:
    """Return the number of cores that this process may use."""
    # fewer than the machine has under taskset and in jobs of a cluster
    allowed = getattr(os, 'sched_getaffinity', None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
