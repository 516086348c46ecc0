"""MMEngine's runner with a moment for hooks before it builds anything."""

from typing import Any, Dict, Union

from mmdet.registry import RUNNERS
from mmengine.runner import BaseLoop, Runner

from mmdet_contrast.utils.checkpoint import find_resumable


@RUNNERS.register_module()
class CheckedRunner(Runner):
    """MMEngine's ``Runner`` that calls hooks before it builds data, optimizer and evaluators.

    Hooks with a method ``before_build(runner, mode)`` are called before each of the loops 'train',
    'val' and 'test' is built. MMEngine's first call, ``before_run``, comes when all is built and
    annotation files have been read.

    Examples:
        In a config, for whichever program builds the runner:

        >>> runner_type = 'mmdet.CheckedRunner'
    """

    @property
    def pending(self) -> Dict[str, Any]:
        """dict: Configs of what is to be built, or what was given built, by the config's keys."""
        return dict(
            train_dataloader=self._train_dataloader,
            val_dataloader=self._val_dataloader,
            test_dataloader=self._test_dataloader,
            val_evaluator=self._val_evaluator,
            test_evaluator=self._test_evaluator,
            optim_wrapper=self.optim_wrapper,
        )

    # The loops are what a run builds first, and `test_evaluator`, which programs ask for before
    # they call `test`, builds one, too.
    def build_train_loop(self, loop: Union[BaseLoop, Dict]) -> BaseLoop:
        """Build the training loop; see MMEngine."""
        self.call_hook('before_build', mode='train')
        return super().build_train_loop(loop)

    def build_val_loop(self, loop: Union[BaseLoop, Dict]) -> BaseLoop:
        """Build the validation loop; see MMEngine."""
        self.call_hook('before_build', mode='val')
        return super().build_val_loop(loop)

    def build_test_loop(self, loop: Union[BaseLoop, Dict]) -> BaseLoop:
        """Build the test loop; see MMEngine."""
        self.call_hook('before_build', mode='test')
        return super().build_test_loop(loop)

    def load_or_resume(self) -> None:
        """Load or resume a checkpoint; the latest one is that of the work directory itself."""
        if self._resume and self._load_from is None and not self._has_loaded:
            self._load_from = find_resumable(self.work_dir)
        super().load_or_resume()
