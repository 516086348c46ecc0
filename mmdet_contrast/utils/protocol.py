"""Run the configs of a folder that add classes to a detector, and compare them."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

from mmengine.config import Config

from .config import config_root

TEACHER = 'teacher'
_METRICS = ('base_mAP', 'novel_mAP', 'harmonic_mAP', 'bbox_mAP')


class ProtocolResult(NamedTuple):
    """What one variant reached."""

    name: str
    seeds: List[int]
    metrics: List[Dict[str, float]]
    """By seed, as the evaluator returned them, without their prefix."""

    def show(self, metric: str) -> str:
        """Format a metric as a mean with its spread.

        Args:
            metric (str): For example ``'base_mAP'``.

        Returns:
            str: In per cent; ``'-'`` where the evaluator does not give it.
        """
        values = [100 * m[metric] for m in self.metrics if metric in m]
        if not values:
            return '-'
        spread = f' ± {stdev(values):.1f}' if len(values) > 1 else ''
        return f'{mean(values):.1f}{spread}'


def run_protocol(
    folder: Union[str, Path],
    work_dir: Union[str, Path],
    seeds: Sequence[int] = (0, 1, 2),
    variants: Optional[Sequence[str]] = None,
    jobs: int = 1,
    cfg_options: Optional[Mapping[str, Any]] = None,
) -> List[ProtocolResult]:
    """Train and test the teacher, then every other config of a folder with every seed.

    Each run is a process of its own with ``work_dir/<config>/seed<seed>`` as its work directory.
    What is there already is not run again. The teacher is trained once, with the first seed; the
    others get its last checkpoint as ``model.teacher_checkpoint``.

    Args:
        folder (str | Path): Holds ``<folder>_teacher.py`` and ``<folder>_<variant>.py`` for each
            variant: ``shapes20/shapes20_teacher.py``.
        work_dir (str | Path): For checkpoints, logs and results.
        seeds (Sequence[int]): Seeds of the students.
        variants (Sequence[str], optional): Their names. Defaults to all in the folder.
        jobs (int): Processes at a time; the cores are divided among them.
        cfg_options (Mapping[str, Any], optional): Dotted config keys and new values for every run,
            the teacher's too.

    Returns:
        list[ProtocolResult]: The teacher's, then the variants' in the order given.

    Raises:
        ValueError: If a config is missing.
        RuntimeError: If a run fails.
    """
    folder, work_dir = Path(folder), Path(work_dir)
    prefix = f'{folder.resolve().name}_'
    known = sorted(path.stem[len(prefix) :] for path in folder.glob(f'{prefix}*.py'))
    variants = [v for v in known if v != TEACHER] if variants is None else list(variants)
    missing = [v for v in (TEACHER, *variants) if v not in known]
    if missing:
        raise ValueError(
            f'{folder} has no {prefix}{missing[0]}.py; it has {", ".join(known) or "no config"}.'
        )
    options = dict(cfg_options or {})
    runner = _Runs(folder, work_dir, options, max(1, _cores() // jobs))
    results = [ProtocolResult(TEACHER, [seeds[0]], [runner.run(TEACHER, seeds[0])])]
    checkpoint = last_checkpoint(work_dir / TEACHER / f'seed{seeds[0]}')
    with ThreadPoolExecutor(jobs) as pool:
        futures = {
            (name, seed): pool.submit(runner.run, name, seed, checkpoint)
            for seed in seeds
            for name in variants
        }
        try:
            for name in variants:
                found = [futures[name, seed].result() for seed in seeds]
                results.append(ProtocolResult(name, list(seeds), found))
        finally:
            # else the pool finishes hours of other runs before a failure is seen
            for future in futures.values():
                future.cancel()
    return results


def format_table(results: Sequence[ProtocolResult]) -> str:
    """Lay out results as a Markdown table, AP in per cent.

    Args:
        results (Sequence[ProtocolResult]): What :func:`run_protocol` returned.

    Returns:
        str: The table.
    """
    lines = [
        '| variant | AP of old classes | AP of new classes | harmonic mean | AP | seeds |',
        '|---|---|---|---|---|---|',
    ]
    for result in results:
        cells = [result.show(metric) for metric in _METRICS]
        if result.name == TEACHER:
            # it knows the old classes only
            cells[0] = cells[3]
        lines.append(f'| {" | ".join([result.name, *cells, str(len(result.seeds))])} |')
    return '\n'.join(lines)


def last_checkpoint(work_dir: Union[str, Path]) -> Path:
    """Return the checkpoint that MMEngine's ``last_checkpoint`` file names.

    Args:
        work_dir (str | Path): Of a run.

    Returns:
        Path: The checkpoint.

    Raises:
        FileNotFoundError: If there is none.
    """
    note = Path(work_dir) / 'last_checkpoint'
    if not note.is_file():
        raise FileNotFoundError(f'{work_dir} has no checkpoint: the training did not get so far.')
    path = Path(note.read_text().strip())
    return path if path.is_file() else Path(work_dir) / path.name


def _cores() -> int:
    """Return the number of cores that this process may use."""
    # fewer than the machine has under taskset and in jobs of a cluster
    allowed = getattr(os, 'sched_getaffinity', None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class _Runs:
    """Training and testing of the configs of a folder, each in a process."""

    def __init__(self, folder: Path, work_dir: Path, options: Dict[str, Any], threads: int) -> None:
        self.folder = folder
        self.work_dir = work_dir
        self.options = options
        self.threads = threads
        self._lock = threading.Lock()
        self.tools = config_root().parent / 'tools'

    def run(self, name: str, seed: int, teacher: Optional[Path] = None) -> Dict[str, float]:
        """Train and test a config unless that is done; return its metrics."""
        out = self.work_dir / name / f'seed{seed}'
        done = out / 'metrics.json'
        if done.is_file():
            return json.loads(done.read_text())
        config = self.folder / f'{self.folder.resolve().name}_{name}.py'
        options = dict(self.options, **{'randomness.seed': seed})
        if Config.fromfile(str(config)).model.type == 'DistillationDetector':
            options['model.teacher_checkpoint'] = str(teacher)
        out.mkdir(parents=True, exist_ok=True)
        self._call(out, 'train.py', [str(config), '--resume'], options)
        checkpoint = str(last_checkpoint(out))
        self._call(out / 'test', 'test.py', [str(config), checkpoint], options)
        # the newest of the time stamps
        (found,) = sorted((out / 'test').glob('*/*.json'))[-1:]
        metrics = {
            key.split('/')[-1]: value
            for key, value in json.loads(found.read_text()).items()
            if isinstance(value, (int, float))
        }
        done.write_text(json.dumps(metrics))
        with self._lock:
            print(f'{name}, seed {seed}: AP {100 * metrics["bbox_mAP"]:.1f}', file=sys.stderr)
        return metrics

    def _call(self, out: Path, tool: str, arguments: List[str], options: Dict[str, Any]) -> None:
        command = [sys.executable, str(self.tools / tool), *arguments, '--work-dir', str(out)]
        command += ['--cfg-options', *[f'{key}={value}' for key, value in options.items()]]
        env = dict(os.environ, OMP_NUM_THREADS=str(self.threads), MKL_NUM_THREADS=str(self.threads))
        out.mkdir(parents=True, exist_ok=True)
        log = out / f'{tool[:-3]}.log'
        with open(log, 'w', encoding='utf-8') as stream:
            code = subprocess.call(command, stdout=stream, stderr=subprocess.STDOUT, env=env)
        if code != 0:
            lines = log.read_text(encoding='utf-8').strip().splitlines()
            raise RuntimeError(f'{tool} failed for {out} (see {log}): {lines[-1] if lines else ""}')
