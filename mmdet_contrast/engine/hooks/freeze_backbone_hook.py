"""Freezing of modules for the first part of a training run."""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.optim import Optimizer

from mmdet_contrast.utils.model import find_module, unwrap_model


@HOOKS.register_module()
class FreezeBackboneHook(Hook):
    """Freeze modules for the first epochs or iterations, then train them.

    Frozen parameters need no gradient and have none, so that neither momentum nor weight decay
    moves them; batch normalisation and dropout inside are in evaluation mode; and autograd keeps
    no activations of a module whose input needs no gradient either, such as a backbone's.

    What is frozen follows from the runner's epoch and iteration, so a resumed run goes on as the
    interrupted one would have. In a distributed run, set ``find_unused_parameters=True`` in the
    config. Backbones' own ``frozen_stages`` freezes for good; set it to -1 for what is to be
    trained later. With gradient accumulation, the first update after unfreezing has the gradients
    of those iterations that came after it.

    Args:
        freeze_epochs (int): Number of epochs that the modules are frozen for; 0: not at all; -1:
            always. Defaults to 5.
        modules (Sequence[str] | str): Dotted names of modules, as ``model.named_modules()`` gives
            them (``'backbone.layer1'``); what is inside of a module is frozen with it.
        freeze_iters (int, optional): Number of iterations, instead of ``freeze_epochs``.
        stages (Sequence[dict], optional): Several stages instead of one: each a dict of
            ``modules``, ``freeze_epochs`` or ``freeze_iters`` and, if wanted, ``lr_mult`` and
            ``warmup_iters``. What is named in several is frozen until the last of them ends.
        lr_mult (float): Factor on the learning rate of the modules once they are trained, until
            the end of training. The log shows the rate without it.
        warmup_iters (int): Number of iterations after unfreezing in which that factor rises
            linearly from ``lr_mult / warmup_iters``. This and ``lr_mult`` need parameter groups
            of their own for these parameters, which any ``optim_wrapper.paramwise_cfg`` gives.

    Raises:
        ValueError: Before training, if a name matches no module, or if the loop, the model, its
            wrapper or the optimizer would keep the modules from being trained later.

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
        freeze_epochs: int = 5,
        modules: Union[str, Sequence[str]] = ('backbone',),
        freeze_iters: Optional[int] = None,
        stages: Optional[Sequence[dict]] = None,
        lr_mult: float = 1.0,
        warmup_iters: int = 0,
    ) -> None:
        one = dict(modules=modules, freeze_epochs=freeze_epochs, freeze_iters=freeze_iters)
        after = dict(lr_mult=lr_mult, warmup_iters=warmup_iters)
        self.stages = [_Stage(**{**after, **stage}) for stage in stages or [one]]
        # of each stage: the modules that it names, and the parameters that it freezes
        self._modules: List[List[nn.Module]] = []
        self._parameters: List[List[nn.Parameter]] = []
        self._active: List[bool] = []
        self._groups: List[Tuple[dict, _Stage]] = []
        self._scheduled: List[float] = []
        self._handles: List[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Find the modules, check that they can be trained later, and freeze.

        The model is wrapped and the optimizer is built by then: what is frozen before the one is
        never synchronised later, what is frozen before the other is never trained.

        Args:
            runner (Runner): The runner.
        """
        model = unwrap_model(runner.model)
        self._modules = [[find_module(model, name) for name in s.modules] for s in self.stages]
        everything = [
            list(dict.fromkeys(p for module in modules for p in module.parameters()))
            for modules in self._modules
        ]
        # the stage that ends last, by parameter
        last: Dict[nn.Parameter, _Stage] = {}
        length = len(runner.train_dataloader)
        for stage, found in sorted(zip(self.stages, everything), key=lambda x: x[0].end(length)):
            last.update(dict.fromkeys(found, stage))
        later = [p for p, stage in last.items() if not stage.always]
        names = {p: name for name, p in model.named_parameters()}
        _check_train_keeps(model, later, names)
        # What needs no gradient now was frozen by the model's own config, and stays so.
        self._parameters = [[p for p in found if p.requires_grad] for found in everything]
        self._check_can_train(runner, later, names)
        self._active = [False] * len(self.stages)
        self._groups = self._find_groups(runner, last, names)
        if self._groups:
            self._change_rates(runner)
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
                # Set again by `model.train()` of the loops only. Walking through all that is
                # inside takes milliseconds, in which a GPU waits.
                if module.training:
                    module.eval()

    def _switch(self, runner: Runner, active: List[bool]) -> None:
        """Freeze and unfreeze parameters, and log it."""
        before, frozen = (
            {p for found, is_active in zip(self._parameters, states) if is_active for p in found}
            for states in (self._active, active)
        )
        for parameter in before - frozen:
            parameter.requires_grad_(True)
        for parameter in frozen:
            parameter.requires_grad_(False)
            # a gradient of zeros would let momentum and weight decay move it
            parameter.grad = None
        for stage, found, was, now in zip(self.stages, self._parameters, self._active, active):
            if was == now:
                continue
            changed = found if now else [p for p in found if p not in frozen]
            text = (
                f'FreezeBackboneHook: {"froze" if now else "unfroze"} {", ".join(stage.modules)}: '
                f'{sum(p.numel() for p in changed):,} parameters in {len(changed)} tensors'
            )
            if now:
                text += f' {stage.until}'
            elif stage.changes_rate:
                text += f', learning rate x {stage.lr_mult:g}, warm-up {stage.warmup_iters}'
                text += ' iterations'
            runner.logger.info(f'{text} (epoch {runner.epoch}, iteration {runner.iter}).')
        if any(self._active):
            self._end_evaluation_mode(runner.model)
        self._active = active

    def _end_evaluation_mode(self, model: nn.Module) -> None:
        """Set what is in the stages to the mode that the model's ``train()`` gives it.

        In the middle of an epoch nothing else does. It has to be the whole model's ``train()``,
        as a backbone's sets some of its modules to another mode.
        """
        inside = {m for modules in self._modules for top in modules for m in top.modules()}
        outside = [(m, m.training) for m in model.modules() if m not in inside]
        model.train()
        for module, training in outside:
            module.training = training

    def _check_can_train(
        self, runner: Runner, later: List[nn.Parameter], names: Dict[nn.Parameter, str]
    ) -> None:
        """Refuse stages that would end without an error, and train nothing then."""
        optimizers = _optimizers_of(runner)
        held = {p for opt in optimizers for group in opt.param_groups for p in group['params']}
        for stage, found in zip(self.stages, self._parameters):
            if stage.always:
                continue
            by_epoch = stage.freeze_iters is None and stage.freeze_epochs > 0
            if by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
                raise ValueError(
                    f'FreezeBackboneHook got freeze_epochs={stage.freeze_epochs}, but train_cfg '
                    'counts iterations, and its epoch is always 0: give freeze_iters instead.'
                )
            if not found:
                raise ValueError(
                    f'FreezeBackboneHook is to train {", ".join(stage.modules)} later, but no '
                    'parameter in it needs a gradient to begin with: set requires_grad=True there.'
                )
        left_out = [names[p] for p in later if p.requires_grad and p not in held]
        if left_out:
            raise ValueError(
                f'FreezeBackboneHook is to train {left_out[0]} later, but the optimizer does not '
                'hold it: freeze nothing before the optimizer is built, but with this hook.'
            )

    def _find_groups(
        self, runner: Runner, last: Dict[nn.Parameter, '_Stage'], names: Dict[nn.Parameter, str]
    ) -> List[Tuple[dict, '_Stage']]:
        """Find the parameter groups whose learning rate changes."""
        groups = []
        for group in (g for optimizer in _optimizers_of(runner) for g in optimizer.param_groups):
            found = {last.get(p) for p in group['params']}
            changing = [stage for stage in found if stage is not None and stage.changes_rate]
            if changing and len(found) > 1:
                stage = changing[0]
                name = next(names[p] for p in group['params'] if last.get(p) is stage)
                raise ValueError(
                    f'FreezeBackboneHook changes the learning rate of {name}, which shares its '
                    'parameter group with others: set optim_wrapper.paramwise_cfg='
                    f'dict(custom_keys={{{stage.modules[0]!r}: dict(lr_mult=1.0)}}).'
                )
            groups += [(group, stage) for stage in changing]
        return groups

    def _change_rates(self, runner: Runner) -> None:
        """Change the rates around the updates alone: the schedules go on from their own values."""
        length = len(runner.train_dataloader)

        def scale(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
            self._scheduled = [group['lr'] for group, _ in self._groups]
            for group, stage in self._groups:
                group['lr'] = group['lr'] * stage.rate_factor(runner.iter, length)

        def put_back(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
            for (group, _), rate in zip(self._groups, self._scheduled):
                group['lr'] = rate

        for optimizer in _optimizers_of(runner):
            self._handles.append(optimizer.register_step_pre_hook(scale))
            self._handles.append(optimizer.register_step_post_hook(put_back))


@dataclass(eq=False)
class _Stage:
    """Modules, how long they are frozen, and their learning rate afterwards."""

    modules: Union[str, Sequence[str]] = ('backbone',)
    freeze_epochs: int = 5
    freeze_iters: Optional[int] = None
    lr_mult: float = 1.0
    warmup_iters: int = 0

    def __post_init__(self) -> None:
        self.modules = [self.modules] if isinstance(self.modules, str) else list(self.modules)

    @property
    def always(self) -> bool:
        """Whether the modules are frozen for good."""
        return (self.freeze_epochs if self.freeze_iters is None else self.freeze_iters) < 0

    @property
    def changes_rate(self) -> bool:
        """Whether the learning rate after unfreezing differs from the scheduled one."""
        return not self.always and (self.lr_mult != 1 or self.warmup_iters > 0)

    @property
    def until(self) -> str:
        """How long the modules are frozen, in words."""
        if self.always:
            return 'for good'
        if self.freeze_iters is not None:
            return f'until iteration {self.freeze_iters}'
        return f'until epoch {self.freeze_epochs}'

    def is_frozen(self, epoch: int, iteration: int) -> bool:
        """Tell whether the modules are frozen at an iteration (both counted from 0)."""
        if self.freeze_iters is not None:
            return self.always or iteration < self.freeze_iters
        return self.always or epoch < self.freeze_epochs

    def end(self, epoch_length: int) -> float:
        """Return the first iteration that trains the modules; infinity if none does."""
        if self.always:
            return float('inf')
        if self.freeze_iters is not None:
            return self.freeze_iters
        return self.freeze_epochs * epoch_length

    def rate_factor(self, iteration: int, epoch_length: int) -> float:
        """Return the factor on the scheduled learning rate at an iteration."""
        done = iteration - self.end(epoch_length) + 1
        if not 0 < done < self.warmup_iters:
            return self.lr_mult
        return self.lr_mult * done / self.warmup_iters


def _check_train_keeps(
    model: nn.Module, parameters: List[nn.Parameter], names: Dict[nn.Parameter, str]
) -> None:
    """Refuse modules whose own ``train()`` freezes parameters again; leave it in training mode."""
    # requires_grad of what is not floating point cannot be set
    parameters = [p for p in parameters if p.is_floating_point()]
    before = [p.requires_grad for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    model.train()
    again = [names[p] for p in parameters if not p.requires_grad]
    for parameter, value in zip(parameters, before):
        parameter.requires_grad_(value)
    if again:
        raise ValueError(
            f'FreezeBackboneHook is to train {again[0]} later, but train() of the model freezes '
            'it: set frozen_stages=-1 in the backbone (norm_eval=False, too, if the statistics '
            'are to move), or name other modules.'
        )


def _optimizers_of(runner: Runner) -> List[Optimizer]:
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [item.optimizer for item in wrappers]
