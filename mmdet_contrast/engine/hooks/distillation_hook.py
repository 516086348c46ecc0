"""Hook that prepares a distillation."""

import os.path as osp
from typing import Any, Dict, Iterator, List, Optional

from mmdet.datasets import CocoDataset
from mmdet.registry import HOOKS
from mmengine.fileio import load
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_contrast.utils.checkpoint import class_lists
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.model import unwrap_model


@HOOKS.register_module()
class DistillationHook(Hook):
    """Load the teacher of a :class:`DistillationDetector` when training starts.

    It also takes the names of the student's classes from the training data, and starts the student
    from the teacher if ``start_from_teacher`` is set.

    An image of a COCO file may say itself which classes it annotates, those without an object in it
    included: ``"annotated_category_ids": [3, 4]`` beside its ``file_name``. For images without
    that entry ``model.annotated_classes`` holds. Images that annotate different classes cannot be
    mixed, as by a mosaic, which would annotate neither.

    Examples:
        >>> custom_hooks = [dict(type='DistillationHook')]
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        # `--resume` without a checkpoint to resume from starts afresh: what counts is a loaded one
        self._loaded = False

    def before_train(self, runner: Runner) -> None:
        """Load the teacher, match the classes, start the student.

        Raises:
            LaunchError: If an image has different entries in two files, or images that annotate
                different classes are mixed.
        """
        model = unwrap_model(runner.model)
        dataset = runner.train_dataloader.dataset
        # RunCheckHook refuses parts that differ
        classes = next(iter(class_lists(dataset)), None)
        entries = _annotated_in(dataset)
        # what MMDetection's MultiImageMixDataset gives other images
        mixing = [type(t).__name__ for t in _transforms(dataset) if hasattr(t, 'get_indexes')]
        if mixing and any(ids != next(iter(entries.values())) for ids in entries.values()):
            raise LaunchError(
                f'images annotate different classes (annotated_category_ids), and {mixing[0]} of '
                'the training pipeline mixes them: leave it out.'
            )
        model.prepare(classes, {path: ids for path, ids in entries.items() if ids is not None})
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


def _annotated_in(dataset: Any) -> Dict[str, Optional[List[int]]]:
    """Read from annotation files which classes each image annotates; None where it does not say."""
    found: Dict[str, Optional[List[int]]] = {}
    for inner in _inner(dataset):
        for path, labels in _annotated_in(inner).items():
            if found.setdefault(path, labels) != labels:
                raise LaunchError(
                    f'image {path!r} is in two annotation files, whose annotated_category_ids '
                    'differ: give it the same entry in both.'
                )
    # shards have no such file, and are not written from one that says so
    if isinstance(dataset, CocoDataset) and dataset.ann_file:
        content = load(dataset.ann_file, backend_args=dataset.backend_args)
        # images of LVIS have a URL alone, and no such entry
        for image in (each for each in content['images'] if 'file_name' in each):
            path = osp.join(dataset.data_prefix['img'], image['file_name'])
            ids = image.get('annotated_category_ids')
            known = dataset.cat2label
            found[path] = None if ids is None else sorted(known[i] for i in ids if i in known)
    return found


def _inner(dataset: Any) -> List[Any]:
    """Return the data sets in a wrapper of some."""
    wrapped = getattr(dataset, 'dataset', None)
    return [*getattr(dataset, 'datasets', ()), *([] if wrapped is None else [wrapped])]


def _transforms(holder: Any) -> Iterator[Any]:
    """Find the transforms of a data set, and of what holds others, as RandomApply does."""
    steps = getattr(holder, 'pipeline', None) or getattr(holder, 'transforms', None) or ()
    for step in steps if isinstance(steps, (list, tuple)) else [steps]:
        yield step
        yield from _transforms(step)
    for inner in _inner(holder):
        yield from _transforms(inner)
