"""Adding classes to a detector: what ``tools/add_classes.py`` does, as a function."""

import os.path as osp
from pathlib import Path
from typing import Any, Dict, Sequence, Union

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.runner import CheckpointLoader

from mmdet_contrast.utils.checkpoint import find_resumable
from mmdet_contrast.utils.files import PathLike

from .addition_config import add_classes_config, teacher_test_config
from .addition_result import AdditionResult
from .test import test
from .train import train


def add_classes(
    config: Union[PathLike, Config],
    checkpoint: PathLike,
    ann: str,
    img_dir: str,
    classes: Sequence[str],
    *,
    launcher: str = 'none',
    trust_checkpoint: bool = False,
    **options: Any,
) -> AdditionResult:
    """Add classes to a detector, from pictures that annotate the new classes.

    The work directory gets ``detector.py`` and ``detector.pth``, the config and the weights of the
    detector with all classes, which the next addition takes; and ``result.md``, ``result.json`` and
    ``result.png``, what was kept and what was learnt.

    Args:
        config (str | PathLike | Config): Config of the detector that is there.
        checkpoint (str | PathLike): Its weights, file or URL.
        ann (str): COCO file of pictures that annotate the new classes.
        img_dir (str): Folder of its pictures.
        classes (Sequence[str]): Names of the new classes.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        trust_checkpoint (bool): Load checkpoints with objects of any class, which can run any code.
        **options (Any): Further arguments of :func:`add_classes_config`: ``val`` to evaluate on,
            ``annotated_classes``, ``replay`` of old pictures, ``work_dir``, ``cfg_options`` …

    Returns:
        AdditionResult: AP by class before and after, and where the detector is.

    Raises:
        LaunchError: If classes cannot be added to this detector, or not from these pictures.

    Example:
        >>> result = add_classes(
        ...     'old.py', 'old.pth', 'new.json', 'images', ['screw', 'washer'], val='val.json')
        >>> result.kept, result.new
    """
    cfg = add_classes_config(
        config,
        checkpoint,
        ann,
        img_dir,
        classes,
        launcher=launcher,
        trust_checkpoint=trust_checkpoint,
        **options,
    )
    if is_main_process():
        # what is left of an earlier addition would be taken for this one's
        for name in ('last_checkpoint', 'detector.pth', 'result.md', 'result.json', 'result.png'):
            Path(cfg.work_dir, name).unlink(missing_ok=True)
    before: Dict[str, float] = {}
    if cfg.get('val_dataloader'):
        # first: data that cannot be evaluated are found out before hours of training
        before = test(
            teacher_test_config(cfg),
            cfg.model.teacher_checkpoint,
            work_dir=osp.join(cfg.work_dir, 'before'),
            launcher=launcher,
            trust_checkpoint=trust_checkpoint,
        )
    runner = train(cfg, launcher=launcher, trust_checkpoint=trust_checkpoint)
    after = {
        key[len('val/coco/') :]: float(history.current())
        for key, history in runner.message_hub.log_scalars.items()
        if key.startswith('val/coco/')
    }
    old, everything = tuple(cfg.model.teacher_classes), tuple(cfg.model.student_classes)
    result = AdditionResult(
        checkpoint=osp.join(cfg.work_dir, 'detector.pth'),
        config=osp.join(cfg.work_dir, 'detector.py'),
        old_classes=old,
        new_classes=everything[len(old) :],
        metrics_before={key[len('coco/') :]: value for key, value in before.items()},
        metrics_after=after,
    )
    if is_main_process():
        saved = CheckpointLoader.load_checkpoint(find_resumable(cfg.work_dir), 'cpu')
        meta = dict(dataset_meta=saved['meta']['dataset_meta'])
        torch.save(dict(state_dict=saved['state_dict'], meta=meta), result.checkpoint)
        result.save(cfg.work_dir)
    barrier()
    return result
