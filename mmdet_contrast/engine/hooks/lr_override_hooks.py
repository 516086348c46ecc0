"""Hooks that train some parameters at another learning rate than the scheduled one.

MMEngine's schedulers act on all parameter groups and compute the next value from the current one.
So a group gets its own rate for the length of an iteration and the scheduled one back after it:
schedulers and checkpoints never see a difference, and a resumed run needs nothing more.
"""

from typing import Dict, List, Optional, Sequence, Tuple, Union

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_contrast.utils.model import find_module, unwrap_model


class _LROverrideHook(Hook):
    """Puts the scheduled learning rates back."""

    # before the schedulers' hook (LOW) after an iteration, after all others before one
    priority = 'BELOW_NORMAL'

    def __init__(self) -> None:
        self._scheduled: List[Tuple[dict, float]] = []

    def override(self, group: dict, rate: float) -> None:
        """Set the learning rate of a parameter group until the end of the iteration."""
        self._scheduled.append((group, group['lr']))
        group['lr'] = rate

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Union[dict, tuple, list, None] = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Put the scheduled learning rates back."""
        for group, rate in self._scheduled:
            group['lr'] = rate
        self._scheduled = []


@HOOKS.register_module()
class BiasWarmupHook(_LROverrideHook):
    """Lower the biases' learning rate to the scheduled one while that of the weights rises.

    Part of YOLO's warm-up: over the first epochs weights go from 0 to the scheduled learning rate,
    biases from ``start_lr`` down to it. The weights' part and the momentum are MMEngine's
    ``LinearLR`` and ``LinearMomentum``. The log shows the scheduled rate.

    The ``lr_mult`` of ``custom_keys`` multiplies ``start_lr``, too; ``--auto-scale-lr`` does not.

    Args:
        start_lr (float): Learning rate of the biases in the first iteration.
        epochs (float): Length of the warm-up.

    Raises:
        ValueError: If the optimizer has no parameter group of biases alone.

    Examples:
        >>> custom_hooks = [dict(type='BiasWarmupHook', start_lr=0.1, epochs=3)]
        >>> optim_wrapper = dict(paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0))
    """

    def __init__(self, start_lr: float = 0.1, epochs: float = 3) -> None:
        super().__init__()
        self.start_lr = start_lr
        self.epochs = epochs
        self._groups: List[dict] = []

    def before_train(self, runner: Runner) -> None:
        """Find the groups of biases."""
        parameters = unwrap_model(runner.model).named_parameters()
        biases = {p for name, p in parameters if name.endswith('bias')}
        groups = runner.optim_wrapper.param_groups
        self._groups = [g for g in groups if g['params'] and biases.issuperset(g['params'])]
        if not self._groups:
            raise ValueError(
                'BiasWarmupHook found no parameter group of biases alone: set '
                'optim_wrapper.paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0).'
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Union[dict, tuple, list, None] = None
    ) -> None:
        """Set the learning rate of the biases."""
        length = self.epochs * len(runner.train_dataloader)
        if runner.iter >= length:
            return
        part = runner.iter / length
        for group in self._groups:
            start = self.start_lr * group.get('lr_mult', 1.0)
            self.override(group, start + part * (_initial_lr(group) - start))


@HOOKS.register_module()
class ConstantLRHook(_LROverrideHook):
    """Keep the learning rate of some modules while MMEngine's schedulers change that of the rest.

    SimSiam's predictor has to follow the embeddings to the end of training, so its learning rate
    must not decay (arXiv 2011.10566, table 1). Each module needs parameter groups of its own,
    which ``paramwise_cfg`` gives. The log shows the constant value as ``<module>_lr`` beside the
    scheduled ``lr``.

    Args:
        modules (Sequence[str]): Names of the modules, as in ``model.named_modules()``.

    Raises:
        ValueError: If there is no such module, or it has no parameter groups of its own.

    Examples:
        >>> custom_hooks = [dict(type='ConstantLRHook', modules=('predictor',))]
        >>> optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(predictor=dict(lr_mult=1.0))))
    """

    def __init__(self, modules: Sequence[str] = ('predictor',)) -> None:
        super().__init__()
        self.modules = (modules,) if isinstance(modules, str) else tuple(modules)
        self._groups: Dict[str, List[dict]] = {}

    def before_train(self, runner: Runner) -> None:
        """Find the groups."""
        model = unwrap_model(runner.model)
        for module in self.modules:
            own = set(find_module(model, module).parameters())
            groups = [g for g in runner.optim_wrapper.param_groups if own & set(g['params'])]
            if not groups or any(not own.issuperset(group['params']) for group in groups):
                raise ValueError(
                    f'ConstantLRHook: the parameters of {module!r} have no group of the optimizer '
                    'of their own: set optim_wrapper.paramwise_cfg=dict(custom_keys='
                    f'{{{module!r}: dict(lr_mult=1.0)}}).'
                )
            self._groups[module] = groups

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Union[dict, tuple, list, None] = None
    ) -> None:
        """Set the constant learning rate."""
        for module, groups in self._groups.items():
            for group in groups:
                self.override(group, _initial_lr(group))
            runner.message_hub.update_scalar(f'train/{module}_lr', groups[0]['lr'])


def _initial_lr(group: dict) -> float:
    # set by the schedulers; without any the learning rate is constant as it is
    return group.get('initial_lr', group['lr'])
