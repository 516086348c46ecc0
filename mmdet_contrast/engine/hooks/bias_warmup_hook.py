"""Warm-up of biases from a high learning rate."""

from typing import List, Optional, Tuple

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper


@HOOKS.register_module()
class BiasWarmupHook(Hook):
    """Lower the biases' learning rate to the scheduled one while that of the weights rises.

    Part of YOLO's warm-up: over the first epochs weights go from 0 to the scheduled learning rate,
    biases from ``start_lr`` down to it. The weights' part and the momentum are MMEngine's
    ``LinearLR`` and ``LinearMomentum``. Each bias needs a parameter group of its own, which
    ``paramwise_cfg`` gives (for example ``bias_decay_mult=0``).

    The schedulers compute from the group's current value, so theirs is put back after every
    iteration; the log and checkpoints show the scheduled one.

    Args:
        start_lr (float): Learning rate of the biases in the first iteration.
        epochs (float): Length of the warm-up.
        min_iters (int): At least so many iterations.

    Raises:
        ValueError: If the optimizer has no parameter group of biases alone.
    """

    # before the schedulers' hook (LOW) after an iteration, after all others before one
    priority = 'BELOW_NORMAL'

    def __init__(self, start_lr: float = 0.1, epochs: float = 3, min_iters: int = 0) -> None:
        self.start_lr = start_lr
        self.epochs = epochs
        self.min_iters = min_iters
        self._groups: List[dict] = []
        self._scheduled: Optional[List[float]] = None

    def before_train(self, runner) -> None:
        """Find the groups of biases.

        Args:
            runner (Runner): The runner, its optimizer built.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        biases = {id(p) for name, p in model.named_parameters() if name.endswith('bias')}
        self._groups = [
            group
            for group in runner.optim_wrapper.param_groups
            if group['params'] and all(id(p) in biases for p in group['params'])
        ]
        if not self._groups:
            raise ValueError(
                'BiasWarmupHook found no parameter group of biases alone: set '
                'optim_wrapper.paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0).'
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch: Optional[Tuple] = None) -> None:
        """Set the learning rate of the biases.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the iteration in the epoch.
            data_batch (dict, optional): Not used.
        """
        length = max(self.epochs * len(runner.train_dataloader), self.min_iters)
        if runner.iter >= length:
            return
        part = runner.iter / length
        self._scheduled = [group['lr'] for group in self._groups]
        for group in self._groups:
            group['lr'] = self.start_lr + part * (group['initial_lr'] - self.start_lr)

    def after_train_iter(
        self,
        runner,
        batch_idx: int,
        data_batch: Optional[Tuple] = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Put the scheduled learning rate back.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the iteration in the epoch.
            data_batch (dict, optional): Not used.
            outputs (dict, optional): Not used.
        """
        if self._scheduled is None:
            return
        for group, value in zip(self._groups, self._scheduled):
            group['lr'] = value
        self._scheduled = None
