"""Compare the configs of a folder that add classes to one teacher."""

from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Tuple, Union

from ..utils.launch import load_config
from ..utils.type_name import type_name
from .compare import Comparison, compare
from .runs import last_checkpoint, run_variants

TEACHER = 'teacher'
_METRICS = ('base_mAP', 'novel_mAP', 'harmonic_mAP', 'bbox_mAP')


def run_protocol(
    folder: Union[str, Path],
    work_dir: Union[str, Path],
    seeds: Sequence[int] = (0, 1, 2),
    variants: Optional[Sequence[str]] = None,
    jobs: int = 1,
    cfg_options: Optional[Mapping[str, Any]] = None,
) -> Tuple[Comparison, Comparison]:
    """Train and test the teacher, then every other config of a folder with every seed.

    The teacher is trained once, with the first seed. The other configs get its last checkpoint as
    ``model.teacher_checkpoint`` and are runs of :func:`mmdet_contrast.apis.compare`.

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
        tuple[Comparison, Comparison]: The teacher, and the students in the order given.

    Raises:
        ValueError: If a config is missing.
        RuntimeError: If a run fails.
    """
    folder, work_dir, options = Path(folder), Path(work_dir), dict(cfg_options or {})
    prefix = f'{folder.resolve().name}_'
    known = sorted(path.stem[len(prefix) :] for path in folder.glob(f'{prefix}*.py'))
    names = [v for v in known if v != TEACHER] if variants is None else list(variants)
    missing = [v for v in (TEACHER, *(names or ['<variant>'])) if v not in known]
    if missing:
        raise ValueError(
            f'{folder} has no {prefix}{missing[0]}.py; it has {", ".join(known) or "no config"}.'
        )
    files = {name: folder / f'{prefix}{name}.py' for name in (TEACHER, *names)}
    first = list(seeds[:1])
    runs = run_variants({TEACHER: (files[TEACHER], options)}, work_dir, first, split='test')
    checkpoint = str(last_checkpoint(work_dir / TEACHER / f'seed{first[0]}'))
    students = {}
    for name in names:
        distils = type_name(load_config(files[name]).model.type) == 'DistillationDetector'
        students[name] = (files[name], {'model.teacher_checkpoint': checkpoint} if distils else {})
    result = compare([], work_dir, seeds, jobs, 'test', students, options)
    return Comparison(runs, first, 'test'), result


def format_table(teacher: Comparison, students: Comparison) -> str:
    """Lay out results as a Markdown table, AP in per cent.

    Args:
        teacher (Comparison): First result of :func:`run_protocol`.
        students (Comparison): Second result.

    Returns:
        str: The table.
    """
    lines = [
        '| variant | AP of old classes | AP of new classes | harmonic mean | AP | seeds |',
        '|---|---|---|---|---|---|',
    ]
    for result in (teacher, students):
        for name in result.runs:
            cells = [_show(result, name, metric) for metric in _METRICS]
            if name == TEACHER:
                # it knows the old classes only
                cells[0] = cells[3]
            lines.append(f'| {" | ".join([name, *cells, str(len(result.seeds))])} |')
    return '\n'.join(lines)


def _show(result: Comparison, name: str, metric: str) -> str:
    found = result.statistic(name, metric)
    if found is None:
        return '-'
    return f'{found.mean:.1f}' + (f' ± {found.std:.1f}' if found.std is not None else '')
