"""Hook that prepares a distillation."""

import os.path as osp
from typing import Any, Dict, List

from mmdet.datasets import CocoDataset
from mmdet.registry import HOOKS
from mmengine.fileio import load
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_contrast.utils.checkpoint import class_lists
from mmdet_contrast.utils.model import unwrap_model


@HOOKS.register_module()
class DistillationHook(Hook):
    """Load the teacher of a :class:`DistillationDetector` when training starts.

    It also takes the names of the student's classes from the training data, and starts the student
    from the teacher if ``start_from_teacher`` is set.

    An image of a COCO file may say itself which classes it annotates, those without an object in it
    included: ``"annotated_category_ids": [3, 4]`` beside its ``file_name``. For images without
    that entry ``model.annotated_classes`` holds.

    Examples:
        >>> custom_hooks = [dict(type='DistillationHook')]
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        # `--resume` without a checkpoint to resume from starts afresh: what counts is a loaded one
        self._loaded = False

    def before_train(self, runner: Runner) -> None:
        """Load the teacher, match the classes, start the student."""
        model = unwrap_model(runner.model)
        dataset = runner.train_dataloader.dataset
        # RunCheckHook refuses parts that differ
        classes = next(iter(class_lists(dataset)), None)
        model.prepare(classes, _annotated_in(dataset))
        if model.start_from_teacher and not self._loaded:
            model.start()
        elif model.start_from_teacher and runner.iter == 0:
            runner.logger.warning(
                'start_from_teacher is without effect: the student starts from the checkpoint that '
                'was loaded; set load_from=None to start from the teacher.'
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note that the student does not start from the teacher."""
        self._loaded = True


def _annotated_in(dataset: Any) -> Dict[str, List[int]]:
    """Read from annotation files which classes an image annotates, where it says so."""
    found: Dict[str, List[int]] = {}
    for inner in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)):
        found.update(_annotated_in(inner) if inner is not None else {})
    # shards have no such file, and are not written from one that says so
    if isinstance(dataset, CocoDataset) and dataset.ann_file:
        content = load(dataset.ann_file, backend_args=dataset.backend_args)
        for image in content['images']:
            ids = image.get('annotated_category_ids')
            if ids is not None:
                path = osp.join(dataset.data_prefix['img'], image['file_name'])
                found[path] = [dataset.cat2label[i] for i in ids if i in dataset.cat2label]
    return found
