"""The checks of data, model and checkpoint before a run begins."""

from contextlib import ExitStack
from typing import Any, Dict, List, Optional, Set

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner

from mmdet_contrast.engine.run_checks import (
    check_dataset,
    check_heads,
    check_linear,
    check_run_config,
)
from mmdet_contrast.engine.run_checks.first_process import in_first_process
from mmdet_contrast.utils.checkpoint import (
    check_class_order,
    check_pretrained,
    check_start,
    class_lists,
    find_misfits,
    find_resumable,
    keep_own_files,
    refuse_misfits,
)
from mmdet_contrast.utils.model import unwrap_model
from mmdet_contrast.utils.safe_loading import trust_checkpoints


@HOOKS.register_module()
class RunCheckHook(Hook):
    """Refuse a run that would fail late or silently give wrong results, before its first iteration.

    - Annotation files are sound, and training data have boxes to learn from.
    - The classes of a data set are those of its annotation file, in the order of the file. Data of
      one run, heads and the file of the metric have the same classes, data and metric the same
      images.
    - Keys of data loaders, the optimizer and ``save_best`` exist.
    - A checkpoint that is resumed or tested fills the model, and numbers the classes as the data
      do. Something fits of one that a training starts from, be it ``load_from`` or ``init_cfg``.
    - A linear evaluation reads its boxes before it changes the images, and all of its data have
      one list of classes.

    With ``CheckedRunner`` what can be told from the config is checked before anything is built.
    ``configs/_base_/plugin.py`` names that runner, and has the hook in ``default_hooks``, so that
    it runs whichever program starts the run, and stays where a config sets ``custom_hooks``.

    Args:
        trust_checkpoint (bool): Load checkpoints with objects of any class, which can run any code.
            Defaults to False.

    Raises:
        LaunchError: Where one of these fails.

    Examples:
        >>> runner_type = 'mmdet.CheckedRunner'
        >>> default_hooks = dict(run_check=dict(type='RunCheckHook'))
    """

    # before hooks that work for minutes when a run begins, and that change what is loaded
    priority = 'HIGHEST'

    def __init__(self, trust_checkpoint: bool = False) -> None:
        self.trust_checkpoint = trust_checkpoint
        self._trust = ExitStack()
        self._loaded: Dict[str, Any] = {}
        self._misfits: List[str] = []
        self._checked: Set[str] = set()

    def before_build(self, runner: Runner, mode: str) -> None:
        """Check the config, before data, optimizer and evaluators are built."""
        self._check_config(runner, runner.pending, mode)

    def before_run(self, runner: Runner) -> None:
        """Check what ``init_cfg`` will load, and trust checkpoints if that is set."""
        self._trust.enter_context(trust_checkpoints(self.trust_checkpoint))
        resumes = runner.cfg.get('resume') and (
            runner.cfg.get('load_from') or find_resumable(runner.work_dir)
        )
        if _trains(runner) and not resumes:
            for warning in check_pretrained(unwrap_model(runner.model)):
                runner.logger.warning(warning)

    def after_run(self, runner: Runner) -> None:
        """Trust checkpoints no longer."""
        self._trust.close()

    def after_load_checkpoint(self, runner: Runner, checkpoint: Dict[str, Any]) -> None:
        """Compare a checkpoint with the model; MMEngine only warns of what does not fit."""
        resumes = bool(runner.cfg.get('resume'))
        self._loaded = dict(meta=checkpoint.get('meta'))
        self._misfits = find_misfits(unwrap_model(runner.model), checkpoint, training=resumes)
        if resumes:
            refuse_misfits(self._misfits)
            keep_own_files(checkpoint, runner.work_dir)
        elif _trains(runner):
            file = str(runner.cfg.get('load_from'))
            warning = check_start(unwrap_model(runner.model), checkpoint, file)
            if warning:
                runner.logger.warning(warning)

    def before_train(self, runner: Runner) -> None:
        """Check training and validation data, and a checkpoint that the training goes on from."""
        self._check_config(runner, runner.cfg, 'train')
        train, val = _dataset_of(runner.train_loop), _dataset_of(runner.val_loop)
        _check_built(train, 'train_dataloader')
        _check_built(val, 'val_dataloader')
        classes = max(class_lists(train), key=len, default=[])
        check_heads(runner.model, classes, 'train_dataloader')
        linear = check_linear(runner.model, dict(train_dataloader=train, val_dataloader=val))
        if runner.cfg.get('resume'):
            check_class_order(self._loaded, train, 'train_dataloader', exact=linear)
        # from here on the model is what it is trained to be
        self._loaded, self._misfits = {}, []

    def before_val(self, runner: Runner) -> None:
        """Check a validation that is no part of a training."""
        self._check(runner, runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """Check test data and checkpoint."""
        self._check(runner, runner.test_loop, 'test')

    def _check_config(self, runner: Runner, configs: Any, mode: str) -> None:
        # a training covers its validation
        if self._checked.isdisjoint({mode, 'train'} if mode == 'val' else {mode}):
            check_run_config(runner, configs, mode)
            self._checked.add(mode)

    def _check(self, runner: Runner, loop: Optional[BaseLoop], mode: str) -> None:
        self._check_config(runner, runner.cfg, mode)
        dataset, where = _dataset_of(loop), f'{mode}_dataloader'
        if mode == 'test' or self._loaded:
            _check_built(dataset, where)
        linear = check_linear(runner.model, {where: dataset})
        refuse_misfits(self._misfits)
        check_class_order(self._loaded, dataset, where, exact=linear)


def _check_built(dataset: Any, where: str) -> None:
    in_first_process(lambda: check_dataset(dataset, where))


def _dataset_of(loop: Optional[BaseLoop]) -> Any:
    return getattr(getattr(loop, 'dataloader', None), 'dataset', None)


def _trains(runner: Runner) -> bool:
    """Tell a training from a test, where the optimizer stays a config."""
    return isinstance(getattr(runner, 'optim_wrapper', None), OptimWrapper)
