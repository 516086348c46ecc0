"""Freezing of modules for the first part of a training run."""

from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer

from . import _freeze_checks as checks
from ._freeze_stage import FreezeStage

DEFAULT_MODULES = ('backbone',)


@HOOKS.register_module()
class FreezeBackboneHook(Hook):
    """Freeze modules for the first epochs or iterations, then train them.

    Frozen parameters need no gradient and have none, so that neither momentum nor weight decay
    moves them; batch normalisation and dropout inside are in evaluation mode; and autograd keeps
    no activations of a module whose input needs no gradient either, as a backbone's.

    What is frozen follows from the runner's epoch and iteration, so that a resumed run goes on as
    the interrupted one would have. In a distributed run, set ``find_unused_parameters=True`` in
    the config. Backbones' own ``frozen_stages`` freezes for good; set it to -1 for what is to be
    trained later. With gradient accumulation, the first update after unfreezing has the gradients
    of those iterations that came after it.

    Args:
        freeze_epochs (int, optional): Number of epochs that the modules are frozen for; 0: not at
            all; -1: always. Defaults to 5, if ``freeze_iters`` is not given.
        modules (Sequence[str] | str): Dotted names of modules, as ``model.named_modules()`` gives
            them (``'backbone.layer1'``); what is inside of a module is frozen with it.
        freeze_iters (int, optional): Number of iterations instead of epochs.
        stages (Sequence[dict], optional): Several stages instead of one: each a dict of
            ``modules``, ``freeze_epochs`` or ``freeze_iters`` and, if wanted, ``lr_mult`` and
            ``warmup_iters``. What is named in several is frozen until the last of them ends.
        lr_mult (float): Factor on the learning rate of the modules once they are trained, until
            the end of training. The log shows the rate without it.
        warmup_iters (int): Number of iterations after unfreezing in which that factor rises
            linearly from ``lr_mult / warmup_iters``. This and ``lr_mult`` need parameter groups
            of their own for these parameters, which any ``optim_wrapper.paramwise_cfg`` gives.

    Raises:
        ValueError: If a value is not possible; before training, if a name matches nothing, if
            nothing would be left to train, or if the model, its wrapper or the optimizer would
            keep the modules from being trained later.

    Example:
        >>> custom_hooks = [dict(type='FreezeBackboneHook', freeze_epochs=5)]
        >>> custom_hooks = [
        ...     dict(
        ...         type='FreezeBackboneHook',
        ...         stages=[
        ...             dict(modules=('neck',), freeze_epochs=3),
        ...             dict(modules=('backbone',), freeze_epochs=5, lr_mult=0.1),
        ...         ],
        ...     )
        ... ]
    """

    def __init__(
        self,
        freeze_epochs: Optional[int] = None,
        modules: Union[str, Sequence[str]] = DEFAULT_MODULES,
        freeze_iters: Optional[int] = None,
        stages: Optional[Sequence[dict]] = None,
        lr_mult: float = 1.0,
        warmup_iters: int = 0,
    ) -> None:
        after: Dict[str, Any] = dict(lr_mult=lr_mult, warmup_iters=warmup_iters)
        if stages is None:
            one = dict(modules=modules, freeze_epochs=freeze_epochs, freeze_iters=freeze_iters)
            self.stages = [FreezeStage.parse(dict(one, **after), checks.NAME)]
        else:
            alone = freeze_epochs is None and freeze_iters is None
            if not alone or tuple(modules) != DEFAULT_MODULES or not stages:
                raise ValueError(
                    f'{checks.NAME} got stages={stages!r} and modules, freeze_epochs or '
                    'freeze_iters beside it, or an empty list: give these in each stage.'
                )
            self.stages = [
                FreezeStage.parse(dict(after, **stage), f'{checks.NAME}.stages[{i}]')
                for i, stage in enumerate(stages)
            ]
        self._modules: List[List[nn.Module]] = []
        self._parameters: List[Dict[int, nn.Parameter]] = []
        self._frozen: Dict[int, nn.Parameter] = {}
        self._active: List[bool] = []
        self._groups: List[Tuple[dict, FreezeStage]] = []
        self._scheduled: List[Any] = []
        self._handles: List[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Find the modules, check that they can be trained later, and freeze.

        The model is wrapped and the optimizer is built by then: what is frozen before the one is
        never synchronised later, what is frozen before the other is never trained.

        Args:
            runner (Runner): The runner.
        """
        model = checks.unwrapped(runner.model)
        names = {id(p): name for name, p in model.named_parameters()}
        self._modules = [[checks.find_module(model, n) for n in s.modules] for s in self.stages]
        checks.check_loop(runner, self.stages)
        everything = [
            {id(p): p for module in modules for p in module.parameters()}
            for modules in self._modules
        ]
        last = self._last_stages(everything, len(runner.train_dataloader))
        trained_later = {key for key, stage in last.items() if not stage.always}
        checks.check_train_keeps(model, names, trained_later)
        # What needs no gradient now was frozen by the model's own config, and stays so.
        self._parameters = [
            {key: p for key, p in found.items() if p.requires_grad} for found in everything
        ]
        self._check_something_to_do()
        wanted = {key for found in self._parameters for key in found}
        checks.check_optimizer(runner, names, wanted & trained_later)
        self._frozen, self._active = {}, [False] * len(self.stages)
        if any(stage.is_frozen(runner.epoch, runner.iter) for stage in self.stages):
            checks.check_wrapper(runner.model)
        if any(stage.changes_rate for stage in self.stages):
            self._prepare_rates(runner, names, last)
        self._apply(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None
    ) -> None:
        """Freeze and unfreeze what the epoch and the iteration say.

        Not at the beginning of the epoch, as the loop sets the model to training mode after that.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch (dict, optional): Not used.
        """
        self._apply(runner)

    def after_train(self, runner: Runner) -> None:
        """Let go of the optimizer.

        Args:
            runner (Runner): Not used.
        """
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _apply(self, runner: Runner) -> None:
        """Bring parameters and modes to what they have to be at this iteration."""
        active = [stage.is_frozen(runner.epoch, runner.iter) for stage in self.stages]
        if active != self._active:
            self._switch(runner, active)
        for modules, frozen in zip(self._modules, active):
            for module in modules if frozen else ():
                module.eval()

    def _switch(self, runner: Runner, active: List[bool]) -> None:
        """Freeze and unfreeze parameters, and log it."""
        frozen: Dict[int, nn.Parameter] = {}
        for found, is_active in zip(self._parameters, active):
            frozen.update(found if is_active else {})
        trained = {key: p for key, p in self._frozen.items() if key not in frozen}
        for parameter in trained.values():
            parameter.requires_grad_(True)
        for parameter in frozen.values():
            parameter.requires_grad_(False)
            # a gradient of zeros would let momentum and weight decay move it
            parameter.grad = None
        for stage, found, was, is_active in zip(
            self.stages, self._parameters, self._active, active
        ):
            if is_active and not was:
                self._log(runner, f'froze {_describe(stage, found)} {stage.until()}')
            elif was and not is_active:
                now = {key: p for key, p in found.items() if key in trained}
                rate = (
                    f', learning rate x {stage.lr_mult:g}, warm-up {stage.warmup_iters} iterations'
                    if stage.changes_rate
                    else ''
                )
                self._log(runner, f'unfroze {_describe(stage, now)}{rate}')
        if any(self._active):
            self._end_evaluation_mode(runner.model)
        self._frozen, self._active = frozen, active
        if not any(p.requires_grad for p in runner.model.parameters()):
            names = ', '.join(name for stage in self.stages for name in stage.modules)
            raise ValueError(
                f'{checks.NAME} freezes {names}, which leaves no parameter of the model to '
                'train: name fewer modules.'
            )

    def _end_evaluation_mode(self, model: nn.Module) -> None:
        """Set what is in the stages to the mode that the model's ``train()`` gives it.

        In the middle of an epoch nothing else does. It has to be the whole model's ``train()``,
        as a backbone's sets some of its modules to another mode.
        """
        inside = {id(m) for found in self._modules for top in found for m in top.modules()}
        outside = [(m, m.training) for m in model.modules() if id(m) not in inside]
        model.train()
        for module, training in outside:
            module.training = training

    def _last_stages(
        self, everything: List[Dict[int, nn.Parameter]], epoch_length: int
    ) -> Dict[int, FreezeStage]:
        """Return the stage that ends last, for each parameter."""
        last: Dict[int, FreezeStage] = {}
        for stage, found in zip(self.stages, everything):
            for key in found:
                other = last.get(key)
                if other is None or stage.end(epoch_length) > other.end(epoch_length):
                    last[key] = stage
        return last

    def _check_something_to_do(self) -> None:
        """Refuse stages whose parameters all need no gradient from the beginning."""
        for stage, found in zip(self.stages, self._parameters):
            if not found and not stage.always:
                raise ValueError(
                    f'{checks.NAME} is to train {", ".join(stage.modules)} later, but no '
                    'parameter in it needs a gradient to begin with: leave the freezing to this '
                    'hook (requires_grad=True in the model).'
                )

    def _prepare_rates(
        self, runner: Runner, names: Dict[int, str], last: Dict[int, FreezeStage]
    ) -> None:
        """Find the parameter groups whose learning rate changes, and change it around updates."""
        self._groups = []
        for optimizer in checks.optimizers_of(runner):
            for group in optimizer.param_groups:
                found = [last.get(id(p)) for p in group['params']]
                stage = next((s for s in found if s is not None and s.changes_rate), None)
                if stage is None:
                    continue
                if any(other is not stage for other in found):
                    name = next(names[id(p)] for p, s in zip(group['params'], found) if s is stage)
                    raise ValueError(
                        f'{checks.NAME} got lr_mult={stage.lr_mult:g} and warmup_iters='
                        f'{stage.warmup_iters}, but {name} shares its parameter group with '
                        'others: give each its own by optim_wrapper.paramwise_cfg='
                        f'dict(custom_keys={{{stage.modules[0]!r}: dict(lr_mult=1.0)}}).'
                    )
                self._groups.append((group, stage))

        # Around the update alone: schedulers and other hooks go on from the scheduled rate.
        def scale(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
            length = len(runner.train_dataloader)
            self._scheduled = [group['lr'] for group, _ in self._groups]
            for group, stage in self._groups:
                group['lr'] = group['lr'] * stage.rate_factor(runner.iter, length)

        def put_back(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
            for (group, _), rate in zip(self._groups, self._scheduled):
                group['lr'] = rate

        self.after_train(runner)
        for optimizer in checks.optimizers_of(runner):
            self._handles.append(optimizer.register_step_pre_hook(scale))
            self._handles.append(optimizer.register_step_post_hook(put_back))

    @staticmethod
    def _log(runner: Runner, what: str) -> None:
        runner.logger.info(
            f'{checks.NAME}: {what} (epoch {runner.epoch}, iteration {runner.iter}).'
        )


def _describe(stage: FreezeStage, parameters: Dict[int, nn.Parameter]) -> str:
    """Name the modules of a stage and count its parameters."""
    number = sum(p.numel() for p in parameters.values())
    return f'{", ".join(stage.modules)}: {number:,} parameters in {len(parameters)} tensors'
