"""The checks of data, model and checkpoint before a run begins."""

from typing import Any, Dict, Iterator, List, Optional, Tuple

from mmcv.transforms import LoadAnnotations
from mmdet.models.dense_heads import RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.registry import HOOKS
from mmengine.fileio import load
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmdet_contrast.models.selfsup import LinearClassifier
from mmdet_contrast.utils.checkpoint import (
    check_class_order,
    class_lists,
    find_misfits,
    refuse_misfits,
)
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.model import unwrap_model


@HOOKS.register_module()
class RunCheckHook(Hook):
    """Refuse a run that would silently give wrong results, before its first iteration.

    - The classes of a data set are those of its annotation file, in the order of the file.
    - A head has as many classes as its training data.
    - A checkpoint that is resumed or tested fills the model, and numbers the classes as the data
      do.
    - A linear evaluation reads its boxes before it changes the images, and all of its data have
      one list of classes.

    ``configs/_base_/plugin.py`` has it in ``default_hooks``, so that it runs whichever program
    starts the run, and stays where a config sets ``custom_hooks``.

    Raises:
        LaunchError: Where one of these fails.

    Examples:
        >>> default_hooks = dict(run_check=dict(type='RunCheckHook'))
    """

    # before hooks that work for minutes when a run begins, and that change what is loaded
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._loaded: Dict[str, Any] = {}
        self._misfits: List[str] = []

    def after_load_checkpoint(self, runner: Runner, checkpoint: Dict[str, Any]) -> None:
        """Compare a checkpoint with the model; MMEngine only warns of what does not fit.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What it loads.
        """
        resumes = bool(runner.cfg.get('resume'))
        self._loaded = dict(meta=checkpoint.get('meta'))
        self._misfits = find_misfits(unwrap_model(runner.model), checkpoint, training=resumes)
        if resumes:
            refuse_misfits(self._misfits)

    def before_train(self, runner: Runner) -> None:
        """Check training and validation data, and a checkpoint that the training goes on from.

        Args:
            runner (Runner): The runner that trains.
        """
        train, val = _dataset_of(runner.train_loop), _dataset_of(runner.val_loop)
        check_dataset(train, 'train_dataloader')
        check_dataset(val, 'val_dataloader')
        check_heads(runner.model, train, 'train_dataloader')
        linear = check_linear(runner.model, dict(train_dataloader=train, val_dataloader=val))
        if runner.cfg.get('resume'):
            check_class_order(self._loaded, train, 'train_dataloader', exact=linear)
        # from here on the model is what it is trained to be
        self._loaded, self._misfits = {}, []

    def before_val(self, runner: Runner) -> None:
        """Check a validation that is no part of a training.

        Args:
            runner (Runner): The runner that validates.
        """
        self._check(runner, runner.val_loop, 'val_dataloader')

    def before_test(self, runner: Runner) -> None:
        """Check test data and checkpoint.

        Args:
            runner (Runner): The runner that tests.
        """
        self._check(runner, runner.test_loop, 'test_dataloader')

    def _check(self, runner: Runner, loop: Optional[BaseLoop], where: str) -> None:
        dataset = _dataset_of(loop)
        if where == 'test_dataloader' or self._loaded:
            check_dataset(dataset, where)
        linear = check_linear(runner.model, {where: dataset})
        refuse_misfits(self._misfits)
        check_class_order(self._loaded, dataset, where, exact=linear)


def check_dataset(dataset: Any, where: str) -> None:
    """Refuse a data set whose classes are not those of its annotation file.

    MMDetection leaves out a class that the annotation file does not name, and the classes after it
    move up by one, without a word. It numbers classes in the order of the file, whatever the order
    of ``metainfo``.

    Args:
        dataset (Dataset): A data set; those inside of a wrapper are looked at. None passes.
        where (str): Where the config describes it, for the message.

    Raises:
        LaunchError: If a class of ``metainfo`` is not in the file, or in another order, or no image
            is left.
    """
    for part in _parts(dataset):
        classes = next(iter(class_lists(part)), None)
        found, file = getattr(part, 'cat_ids', None), getattr(part, 'ann_file', None)
        if classes and file and found is not None and not _is_stock(part, classes):
            content = load(file, backend_args=getattr(part, 'backend_args', None))
            names = {category['id']: category['name'] for category in content['categories']}
            given = [names[i] for i in found]
            if given != list(classes):
                raise LaunchError(
                    f'{where}: metainfo has the classes {tuple(classes)}, of which annotation file '
                    f'{file!r} has {tuple(given)} in this order, among {tuple(names.values())}: '
                    'give metainfo=dict(classes=...) names of the file in its order.'
                )
        if hasattr(part, '__len__') and len(part) == 0:
            raise LaunchError(
                f'{where}: no image of {file!r} is left in the data set: check the annotation file '
                'and filter_cfg, which leaves out images without boxes.'
            )


def check_heads(model: nn.Module, dataset: Any, where: str) -> None:
    """Refuse a head with fewer classes than its data set, which would learn the rest as background.

    Args:
        model (nn.Module): A detector.
        dataset (Dataset): What it is trained on.
        where (str): Where the config describes the data set, for the message.

    Raises:
        LaunchError: If ``num_classes`` of a head is below the number of the data set's classes.
    """
    classes = max(class_lists(dataset), key=len, default=[])
    for name, module in model.named_modules():
        # proposals are of one class whatever the head they come from
        proposes = isinstance(module, RPNHead) or name.endswith('rpn_head')
        number = getattr(module, 'num_classes', None)
        if not isinstance(module, (BaseDenseHead, BBoxHead)) or proposes or number is None:
            continue
        if number < len(classes):
            raise LaunchError(
                f'{name} has num_classes={number}, but {where} has the {len(classes)} classes '
                f'{list(classes)}: set num_classes={len(classes)} in the head.'
            )


def check_linear(model: nn.Module, datasets: Dict[str, Any]) -> bool:
    """Refuse data that a linear evaluation would silently get wrong; other models pass.

    ``LoadAnnotations`` gives boxes in pixels of the file, and only the transforms after it change
    them with the image: MMDetection's test pipelines have it after ``Resize``, because their
    metrics read the annotation file. Labels are positions in a data set's own list of classes.

    Args:
        model (nn.Module): The model, maybe in wrappers of MMEngine.
        datasets (dict): The data sets of one run, by where the config describes them.

    Returns:
        bool: Whether the model is a ``LinearClassifier``.

    Raises:
        LaunchError: If a transform comes before ``LoadAnnotations``, or the lists of classes
            differ.
    """
    if not isinstance(unwrap_model(model), LinearClassifier):
        return False
    classes = [(where, own) for where, dataset in datasets.items() for own in class_lists(dataset)]
    if len({tuple(own) for _, own in classes}) > 1:
        lists = ' and '.join(f'{where} has the classes {own}' for where, own in classes)
        raise LaunchError(
            f'{lists}, but labels are positions in these lists: set metainfo=dict(classes=(...)) '
            'to the same classes in the same order in all data sets.'
        )
    for where, dataset in datasets.items():
        for part in _parts(dataset):
            early = _before_boxes(part)
            if early:
                raise LaunchError(
                    f'{where}: its pipeline has {", ".join(early)} before LoadAnnotations, so the '
                    'boxes would be those of the original image: put LoadAnnotations directly '
                    'after the image is loaded.'
                )
    return True


def _parts(dataset: Any) -> Iterator[Any]:
    """Yield a data set and those inside of it."""
    if dataset is None:
        return
    yield dataset
    # images with a label have no boxes, and what is within BoxCrops does not use its pipeline
    if not getattr(dataset, 'whole_images', False):
        for inner in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)):
            yield from _parts(inner)


def _before_boxes(dataset: Any) -> List[str]:
    """Name the transforms that change an image before its boxes are read."""
    pipeline = getattr(dataset, 'pipeline', None)
    steps: Tuple[Any, ...] = tuple(getattr(pipeline, 'transforms', pipeline) or ())
    if getattr(dataset, 'whole_images', False):
        return []
    reads = [i for i, step in enumerate(steps) if isinstance(step, LoadAnnotations)]
    names = [type(step).__name__ for step in steps]
    return [name for name in names[: reads[-1]] if 'Load' not in name] if reads else []


def _is_stock(dataset: Any, classes: List[str]) -> bool:
    """Tell whether MMDetection itself promises the order of the classes in the file."""
    given = getattr(type(dataset), 'METAINFO', {}).get('classes') or ()
    cat_ids = getattr(dataset, 'cat_ids', None) or ()
    stock = type(dataset).__module__.startswith('mmdet.') and tuple(classes) == tuple(given)
    return stock and len(cat_ids) == len(classes)


def _dataset_of(loop: Optional[BaseLoop]) -> Any:
    return getattr(getattr(loop, 'dataloader', None), 'dataset', None)
