"""Hook that prepares a distillation."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmdet_contrast.models.detectors.distillation_detector import DistillationDetector

_KEY = 'distillation_adapters'


@HOOKS.register_module()
class DistillationHook(Hook):
    """Load the teacher of a :class:`DistillationDetector` when training starts.

    It also takes the names of the student's classes from the training data, starts the student
    from the teacher where that is asked for, and keeps the adapters in checkpoints, beside the
    student's weights, so that training resumes where it was.

    Raises:
        TypeError: If the model is no ``DistillationDetector``.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        # `--resume` without a checkpoint to resume from starts afresh: what counts is a loaded one
        self._loaded = False

    def before_run(self, runner) -> None:
        """Tell the model that its hook is there.

        Args:
            runner (Runner): The runner.
        """
        self._model(runner).has_hook = True

    def before_train(self, runner) -> None:
        """Load the teacher, match the classes, start the student.

        Args:
            runner (Runner): The runner, any checkpoint loaded.
        """
        model = self._model(runner)
        metainfo = getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}
        model.prepare(metainfo.get('classes'))
        if model.start_from_teacher and not self._loaded:
            model.start()
        elif model.start_from_teacher and runner.iter == 0:
            runner.logger.warning(
                'start_from_teacher is without effect, as the student starts from the checkpoint '
                'that was loaded: set load_from=None to start from the teacher.'
            )

    def after_train(self, runner) -> None:
        """Name the terms that taught nothing.

        Args:
            runner (Runner): The runner.
        """
        unused = self._model(runner).unused_terms()
        if unused:
            runner.logger.error(
                f'{", ".join(unused)}: 0 in every iteration, as where the source stays frozen with '
                "the teacher's weights: remove the terms from model.distillers."
            )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the adapters beside the student's weights.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is about to be saved.
        """
        adapters = self._model(runner).adapters
        if len(adapters):
            checkpoint[_KEY] = {name: adapter.weights() for name, adapter in adapters.items()}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the adapters of a checkpoint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was loaded.
        """
        self._loaded = True
        adapters = self._model(runner).adapters
        kept = checkpoint.get(_KEY, {})
        for name, adapter in adapters.items():
            if name in kept:
                adapter.load_weights(kept[name])

    @staticmethod
    def _model(runner) -> DistillationDetector:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, DistillationDetector):
            raise TypeError(
                f'DistillationHook got the model {type(model).__name__}, DistillationDetector '
                'expected: remove the hook from custom_hooks, or set model.type.'
            )
        return model
