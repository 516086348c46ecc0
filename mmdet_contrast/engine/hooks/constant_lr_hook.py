"""Hook that keeps the learning rate of some modules constant."""

from typing import List, Optional, Sequence, Union

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


@HOOKS.register_module()
class ConstantLRHook(Hook):
    """Keep the learning rate of some modules while MMEngine's schedulers change that of the rest.

    SimSiam's predictor has to follow the embeddings to the end of training, so that its learning
    rate must not decay (arXiv 2011.10566, table 1). MMEngine's schedulers act on all parameter
    groups and compute the next value from the current one. So the groups of these modules get
    their initial learning rate for the length of an iteration and the scheduled one back after
    it: schedulers and checkpoints never see a difference, and a resumed run needs nothing more.

    Each module needs parameter groups of its own, which ``paramwise_cfg`` gives. The log shows
    the constant value as ``<module>_lr`` beside the scheduled ``lr``.

    Args:
        modules (Sequence[str]): Names of the modules, as in ``model.named_modules()``.

    Raises:
        ValueError: If a name matches no parameter that is trained, or its parameters share a
            group with others.

    Examples:
        >>> custom_hooks = [dict(type='ConstantLRHook', modules=('predictor',))]
        >>> optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(predictor=dict(lr_mult=1.0))))
    """

    # before the schedulers' hook (LOW) after an iteration, after all others before one
    priority = 'BELOW_NORMAL'

    def __init__(self, modules: Sequence[str] = ('predictor',)) -> None:
        self.modules = (modules,) if isinstance(modules, str) else tuple(modules)
        self._groups: List[List[dict]] = []
        self._scheduled: Optional[List[List[float]]] = None

    def before_train(self, runner: Runner) -> None:
        """Find the groups.

        Args:
            runner (Runner): The runner, its optimizer built.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parameters = list(model.named_parameters())
        self._groups = []
        for module in self.modules:
            own = {id(p) for name, p in parameters if name.startswith(f'{module}.')}
            groups = [
                group
                for group in runner.optim_wrapper.param_groups
                if own.intersection(map(id, group['params']))
            ]
            if not groups:
                children = ', '.join(name for name, _ in model.named_children())
                raise ValueError(
                    f'ConstantLRHook(modules={self.modules}) given, and {module!r} names no '
                    f'parameter that the optimizer trains; the model consists of {children}.'
                )
            if any(not own.issuperset(map(id, group['params'])) for group in groups):
                raise ValueError(
                    f'ConstantLRHook: the parameters of {module!r} share a group of the optimizer '
                    'with others: set optim_wrapper.paramwise_cfg=dict(custom_keys='
                    f'{{{module!r}: dict(lr_mult=1.0)}}).'
                )
            self._groups.append(groups)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Union[dict, tuple, list, None] = None
    ) -> None:
        """Set the constant learning rate.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the iteration in the epoch.
            data_batch (dict, optional): Not used.
        """
        self._scheduled = [[group['lr'] for group in groups] for groups in self._groups]
        for module, groups in zip(self.modules, self._groups):
            for group in groups:
                # set by the schedulers; without any the learning rate is constant as it is
                group['lr'] = group.get('initial_lr', group['lr'])
            runner.message_hub.update_scalar(f'train/{module}_lr', groups[0]['lr'])

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Union[dict, tuple, list, None] = None,
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
        for groups, values in zip(self._groups, self._scheduled):
            for group, value in zip(groups, values):
                group['lr'] = value
        self._scheduled = None
