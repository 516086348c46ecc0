"""Compare ways of adding classes to one teacher."""

from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple, Union

from mmengine.config import Config
from mmengine.fileio import load

from mmdet_contrast.apis import Comparison, RunResult, add_classes_config, compare, test
from mmdet_contrast.apis.addition_config import check_new_classes, teacher_test_config
from mmdet_contrast.apis.addition_data import AnnotatedPictures, merge_files, names_in
from mmdet_contrast.apis.runs import run_variants
from mmdet_contrast.datasets.coco_file import write_coco_file
from mmdet_contrast.utils.checkpoint import find_resumable
from mmdet_contrast.utils.config import LaunchError, config_text, load_config

TEACHER = 'teacher'
_METRICS = ('base_mAP', 'novel_mAP', 'harmonic_mAP', 'bbox_mAP')


def run_protocol(
    config: Union[str, Path],
    ann: str,
    img_dir: str,
    classes: Sequence[str],
    val: str,
    work_dir: Union[str, Path],
    val_img_dir: Optional[str] = None,
    old_ann: Optional[str] = None,
    old_img_dir: Optional[str] = None,
    replay: Optional[str] = None,
    replay_img_dir: Optional[str] = None,
    checkpoint: Optional[str] = None,
    seeds: Sequence[int] = (0, 1, 2),
    variants: Optional[Sequence[str]] = None,
    jobs: int = 1,
    cfg_options: Optional[Mapping[str, Any]] = None,
) -> Tuple[Comparison, Comparison]:
    """Train and test a teacher, then every variant of adding classes to it with every seed.

    The teacher is trained once, with the first seed. The variants' configs are made of that of
    :func:`add_classes_config` and are runs of :func:`mmdet_contrast.apis.compare`.

    Args:
        config (str | Path): The teacher's config.
        ann (str): COCO file of pictures that annotate the new classes.
        img_dir (str): Folder of its pictures.
        classes (Sequence[str]): Names of the new classes.
        val (str): COCO file to evaluate on, of pictures that annotate all classes.
        work_dir (str | Path): For configs, checkpoints, logs and results.
        val_img_dir (str, optional): Folder of its pictures. Defaults to ``img_dir``, as for the
            folders that follow.
        old_ann (str, optional): COCO file of the old pictures, for the variant ``joint``.
        old_img_dir (str, optional): Folder of its pictures.
        replay (str, optional): COCO file of a few old pictures, for the variant ``replay``.
        replay_img_dir (str, optional): Folder of its pictures.
        checkpoint (str, optional): Weights of a teacher that is trained already.
        seeds (Sequence[int]): Seeds of the variants.
        variants (Sequence[str], optional): Their names. Defaults to all that there are data for.
        jobs (int): Processes at a time; the cores are divided among them.
        cfg_options (Mapping[str, Any], optional): Dotted config keys and new values for every run,
            the teacher's too.

    Returns:
        tuple[Comparison, Comparison]: The teacher, and the variants in the order given.

    Raises:
        LaunchError: If there is no such variant, classes cannot be added to the teacher, or a run
            fails.
    """
    work_dir, options, first = Path(work_dir), dict(cfg_options or {}), list(seeds[:1])
    known: Dict[str, Callable[[Config], Config]]
    known = dict(best=best, finetune=finetune, cwd_kl=cwd_kl)
    if old_ann is not None:
        files = {old_ann: old_img_dir or img_dir, ann: img_dir}
        known['joint'] = partial(joint, teacher=load_config(config), files=files)
    if replay is not None:
        known['replay'] = best
    names = list(known if variants is None else variants)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise LaunchError(
            f'variants {unknown} are none of {list(known)}: joint needs --old-ann, and replay '
            'needs --replay.'
        )

    # before hours of training
    check_new_classes(classes, (), (), ann)
    for file in filter(None, (val, old_ann, replay)):
        names_in(file)
    if checkpoint is None:
        run_variants({TEACHER: (config, options)}, work_dir, first)
        checkpoint = find_resumable(str(work_dir / TEACHER / f'seed{first[0]}'))
    students = {}
    for name in names:
        cfg = add_classes_config(
            config,
            checkpoint,
            ann,
            img_dir,
            classes,
            val,
            val_img_dir,
            replay=replay if name == 'replay' else None,
            replay_img_dir=replay_img_dir,
            work_dir=str(work_dir / 'configs' / name),
            # the schedule follows them
            cfg_options=options,
        )
        teacher_test = teacher_test_config(cfg)
        file = Path(cfg.work_dir, 'config.py')
        file.write_text(config_text(known[name](cfg)), encoding='utf-8')
        students[name] = (file, {})
    found = test(teacher_test, checkpoint, work_dir=str(work_dir / TEACHER / 'val'))
    metrics = {key.split('/', 1)[-1]: value for key, value in found.items()}
    teacher = Comparison({TEACHER: [RunResult(metrics, None)]}, first)
    return teacher, compare([], work_dir, seeds, jobs, variants=students, cfg_options=options)


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
            lines.append(f'| {" | ".join([name, *cells, str(len(result.seeds))])} |')
    return '\n'.join(lines)


def _show(result: Comparison, name: str, metric: str) -> str:
    found = result.statistic(name, metric)
    if found is None:
        return '-'
    return f'{found.mean:.1f}' + (f' ± {found.std:.1f}' if found.std is not None else '')


# --- the variants: what becomes of the config that add_classes_config made


def best(cfg: Config) -> Config:
    """Leave the config as it is; with old pictures it is the variant ``replay``."""
    return cfg


def finetune(cfg: Config) -> Config:
    """Start from the teacher, and learn from the annotations alone: the lower bound."""
    cfg.model.update(distillers=[], annotated_classes=None, norm_eval=False)
    path = Path(cfg.work_dir, 'annotations', 'train.json')
    content = load(path)
    for image in content['images']:
        # else it would keep what the picture does not annotate from being background
        del image['annotated_category_ids']
    write_coco_file(path, content)
    return cfg


def cwd_kl(cfg: Config) -> Config:
    """Compare maps of features and softmax of classes, with the weights of a published log.

    The log has 0.2 on each of four maps; a source of several maps is their mean.
    """
    cwd = dict(type='ChannelWiseDivergence', tau=2.0)
    kl = dict(type='LogitsKLDivergence', tau=2.0, mode='softmax')
    cfg = finetune(cfg)
    cfg.model.distillers = [
        dict(source='backbone', loss=cwd, weight=0.8),
        dict(source='neck', loss=cwd, weight=0.8),
        dict(source='bbox_head.cls', loss=kl, weight=0.01),
    ]
    return cfg


def joint(cfg: Config, teacher: Config, files: Mapping[str, str]) -> Config:
    """Train on old and new pictures with all annotations, as the teacher was: the upper bound."""
    everything, parts = cfg.model.student_classes, []
    for ann, img_dir in files.items():
        known = [name for name in everything if name in names_in(ann)]
        parts.append(AnnotatedPictures(ann, img_dir, known, known, known))
    content = merge_files(parts, everything).content
    write_coco_file(Path(cfg.work_dir, 'annotations', 'train.json'), content)
    plain = Config.fromfile(Path(cfg.work_dir, 'detector.py'))
    # with the weights that the teacher's parts began with
    plain.model = {**plain.model, **teacher.to_dict()['model'], 'bbox_head': plain.model.bbox_head}
    plain.load_from = None
    return plain
