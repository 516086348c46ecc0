"""Compare the configs that add classes to one teacher."""

from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Tuple, Union

from mmdet_contrast.apis.compare import Comparison, compare
from mmdet_contrast.apis.runs import last_checkpoint, run_variants
from mmdet_contrast.utils.config import load_config, type_name

TEACHER = 'teacher'
_METRICS = ('base_mAP', 'novel_mAP', 'harmonic_mAP', 'bbox_mAP')


def run_protocol(
    prefix: Union[str, Path],
    work_dir: Union[str, Path],
    seeds: Sequence[int] = (0, 1, 2),
    variants: Optional[Sequence[str]] = None,
    jobs: int = 1,
    cfg_options: Optional[Mapping[str, Any]] = None,
) -> Tuple[Comparison, Comparison]:
    """Train and test the teacher, then every other config of a name with every seed.

    The teacher is trained once, with the first seed. The other configs get its last checkpoint as
    ``model.teacher_checkpoint`` and are runs of :func:`mmdet_contrast.apis.compare`.

    Args:
        prefix (str | Path): What the configs' paths begin with: ``configs/distill/shapes20`` are
            ``shapes20_teacher.py`` and ``shapes20_<variant>.py`` in ``configs/distill``.
        work_dir (str | Path): For checkpoints, logs and results.
        seeds (Sequence[int]): Seeds of the students.
        variants (Sequence[str], optional): Their names. Defaults to all that there are.
        jobs (int): Processes at a time; the cores are divided among them.
        cfg_options (Mapping[str, Any], optional): Dotted config keys and new values for every run,
            the teacher's too.

    Returns:
        tuple[Comparison, Comparison]: The teacher, and the students in the order given.

    Raises:
        LaunchError: If a config does not exist.
        RuntimeError: If a run fails.
    """
    prefix, work_dir, options = Path(prefix), Path(work_dir), dict(cfg_options or {})
    if variants is None:
        found = sorted(prefix.parent.glob(f'{prefix.name}_*.py'))
        variants = [path.stem[len(prefix.name) + 1 :] for path in found]
    names = [name for name in variants if name != TEACHER]
    files = {name: prefix.with_name(f'{prefix.name}_{name}.py') for name in (TEACHER, *names)}
    # all are read first: a name that does not exist is not found out after hours of training
    models = {name: load_config(file).model for name, file in files.items()}
    first = list(seeds[:1])
    runs = run_variants({TEACHER: (files[TEACHER], options)}, work_dir, first, split='test')
    checkpoint = str(last_checkpoint(work_dir / TEACHER / f'seed{first[0]}'))
    students = {}
    for name in names:
        distils = type_name(models[name].type) == 'DistillationDetector'
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
