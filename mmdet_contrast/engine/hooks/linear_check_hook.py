"""Hook that looks at the data of a linear evaluation before it begins."""

from typing import Any, Dict, Optional

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmdet_contrast.utils.checkpoint_checks import check_class_order
from mmdet_contrast.utils.linear_checks import check_linear


@HOOKS.register_module()
class LinearCheckHook(Hook):
    """Refuse data that a linear evaluation would silently get wrong.

    ``tools/train.py`` and ``tools/test.py`` of this package look at them before they start; with
    this hook they are looked at whichever program runs the config. Runs of other models pass.

    Raises:
        LaunchError: When a run begins, if a pipeline changes the image before it reads the boxes,
            or the classes of training and validation data, or those of the data that are tested
            and of the checkpoint, differ.

    Examples:
        >>> custom_hooks = [dict(type='LinearCheckHook')]
    """

    # before hooks that work for minutes when a run begins
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._loaded: Dict[str, Any] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: Dict[str, Any]) -> None:
        """Remember which classes a checkpoint was trained with.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What it loads.
        """
        self._loaded = dict(meta=checkpoint.get('meta'))

    def before_train(self, runner: Runner) -> None:
        """Check training and validation data.

        Args:
            runner (Runner): The runner that trains.
        """
        # from here on the classes of the training data count
        self._loaded = {}
        loops = dict(train_dataloader=runner.train_loop, val_dataloader=runner.val_loop)
        check_linear(runner.model, {where: _dataset_of(loop) for where, loop in loops.items()})

    def before_val(self, runner: Runner) -> None:
        """Check validation data, of a run that does not train, too.

        Args:
            runner (Runner): The runner that validates.
        """
        self._check(runner, runner.val_loop, 'val_dataloader')

    def before_test(self, runner: Runner) -> None:
        """Check test data.

        Args:
            runner (Runner): The runner that tests.
        """
        self._check(runner, runner.test_loop, 'test_dataloader')

    def _check(self, runner: Runner, loop: Optional[BaseLoop], where: str) -> None:
        dataset = _dataset_of(loop)
        if check_linear(runner.model, {where: dataset}):
            check_class_order(self._loaded, dataset, where, exact=True)


def _dataset_of(loop: Optional[BaseLoop]) -> Any:
    return getattr(getattr(loop, 'dataloader', None), 'dataset', None)
