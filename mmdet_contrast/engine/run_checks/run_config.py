"""All checks of the configs of one run."""

from typing import Any, Dict, List

from mmdet.datasets.base_video_dataset import BaseVideoDataset
from mmengine.registry import LOOPS
from mmengine.runner import Runner, ValLoop

from .classes import check_heads, check_same_classes
from .data_config import DataPart, data_parts
from .data_files import (
    check_boxes,
    check_evaluator,
    check_part,
    complete_files,
    use_copies,
)
from .first_process import in_first_process
from .registered import find_type
from .settings import (
    check_loader,
    check_optimizer,
    check_save_best,
    check_switched_pipelines,
)

_SPLITS = ('train', 'val', 'test')


def check_run_config(runner: Runner, configs: Any, mode: str) -> None:
    """Check what a run will build, and complete annotation files that lack an area.

    Only the first of several processes reads files; the others end as it does.

    Args:
        runner (Runner): The runner, with its model and hooks.
        configs (Mapping): Configs of data loaders, evaluators and optimizer by their keys in the
            config. They may name other annotation files afterwards.
        mode (str): 'train', 'val' or 'test'.

    Raises:
        LaunchError: If the run would fail later, or silently give wrong results.
    """
    parts = _parts_of(configs)
    used = [split for split in _SPLITS if split == mode or (mode == 'train' and split == 'val')]
    evaluators = {split: configs.get(f'{split}_evaluator') for split in used if split != 'train'}
    own = [part for split in used for part in parts[split]]

    def check() -> Dict[str, str]:
        for split in used:
            check_loader(configs.get(f'{split}_dataloader'), f'{split}_dataloader')
        if mode == 'train':
            check_optimizer(configs.get('optim_wrapper'))
            check_switched_pipelines(runner.hooks, runner.model)
            loop = (runner.cfg.get('val_cfg') or {}).get('type', 'ValLoop')
            # others return other names, such as teacher/coco/bbox_mAP
            if find_type(LOOPS, loop) is ValLoop:
                check_save_best(runner.hooks, configs.get('val_evaluator'))
        for split in used:
            for part in parts[split]:
                check_part(part)
        if mode == 'train':
            check_boxes(parts['train'], runner.logger)
        _check_classes(runner, parts, used)
        for split, evaluator in evaluators.items():
            check_evaluator(evaluator, parts[split], f'{split}_evaluator', runner.logger)
        if configs is runner.cfg:
            # too late, all is built
            return {}
        return complete_files(own, list(evaluators.values()), runner.work_dir, runner.logger)

    copies = in_first_process(check)
    # hooks that build data sets of their own read the runner's config
    for source in (configs, runner.cfg):
        named = [part for split in used for part in _parts_of(source)[split]]
        use_copies(copies, named, [source.get(f'{split}_evaluator') for split in evaluators])


def _parts_of(configs: Any) -> Dict[str, List[DataPart]]:
    keys = {split: f'{split}_dataloader' for split in _SPLITS}
    return {split: list(data_parts(configs.get(key), key)) for split, key in keys.items()}


def _check_classes(runner: Runner, parts: Dict[str, List[DataPart]], used: List[str]) -> None:
    named = []
    for split in (*used, *[split for split in _SPLITS if split not in used]):
        for part in parts[split]:
            given = 'classes' in (part.cfg.get('metainfo') or {})
            # texts of open-vocabulary data travel with each image, videos are of one class whatever
            # MMDetection lists, and what is not used here may be left over from a base config
            other = part.cfg.get('return_classes') or issubclass(part.kind, BaseVideoDataset)
            if part.classes and not other and (given or split in used):
                named.append((split, part))
    check_same_classes([(part.where, part.classes) for _, part in named])
    for split, part in named:
        if split in used:
            check_heads(runner.model, part.classes, part.where, exact=split != 'train')
