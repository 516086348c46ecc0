"""Freezing of modules for the first part of a training run."""

from typing import Dict, List, Optional, Sequence, Union

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

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

    Raises:
        ValueError: Before training, if a name matches no module, if another such hook freezes the
            same parameters, or if the loop, the model or the optimizer would keep the modules
            from being trained later.

    Example:
        >>> custom_hooks = [dict(type='FreezeBackboneHook', freeze_epochs=5)]
        >>> # in stages
        >>> custom_hooks = [
        ...     dict(type='FreezeBackboneHook', modules=('neck',), freeze_epochs=3),
        ...     dict(type='FreezeBackboneHook', modules=('backbone',), freeze_epochs=5),
        ... ]
    """

    def __init__(
        self,
        freeze_epochs: int = 5,
        modules: Union[str, Sequence[str]] = ('backbone',),
        freeze_iters: Optional[int] = None,
    ) -> None:
        self.names = [modules] if isinstance(modules, str) else list(modules)
        self.by_epoch = freeze_iters is None
        self.length = freeze_epochs if freeze_iters is None else freeze_iters
        self._modules: List[nn.Module] = []
        self._parameters: List[nn.Parameter] = []
        self._frozen = False

    def before_train(self, runner: Runner) -> None:
        """Find the modules, check that they can be trained later, and freeze.

        The model is wrapped and the optimizer is built by then: what is frozen before the one is
        never synchronised later, what is frozen before the other is never trained.
        """
        model = unwrap_model(runner.model)
        names = {p: name for name, p in model.named_parameters()}
        self._modules = [find_module(model, name) for name in self.names]
        found = list(dict.fromkeys(p for module in self._modules for p in module.parameters()))
        for hook in runner.hooks:
            if isinstance(hook, FreezeBackboneHook) and hook is not self:
                shared = [names[p] for p in found if p in set(hook._parameters)]
                if shared:
                    raise ValueError(
                        f'FreezeBackboneHook: two such hooks freeze {shared[0]}: give them modules '
                        'that do not lie in each other.'
                    )
        if self.length >= 0:
            _check_train_keeps(model, found, names)
        # What needs no gradient now was frozen by the model's own config, and stays so.
        self._parameters = [p for p in found if p.requires_grad]
        if self.length >= 0:
            self._check_can_train(runner, names)
        self._frozen = False
        self._apply(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None
    ) -> None:
        """Freeze and unfreeze what the epoch and the iteration say.

        Not at the beginning of the epoch, as the loop sets the model to training mode after that.
        """
        self._apply(runner)

    def _apply(self, runner: Runner) -> None:
        """Bring parameters and modes to what they have to be at this iteration."""
        done = runner.epoch if self.by_epoch else runner.iter
        frozen = self.length < 0 or done < self.length
        if frozen != self._frozen:
            self._switch(runner, frozen)
        for module in self._modules if frozen else ():
            # Set again by `model.train()` of the loops only. Walking through all that is inside
            # takes milliseconds, in which a GPU waits.
            if module.training:
                module.eval()

    def _switch(self, runner: Runner, frozen: bool) -> None:
        """Freeze or unfreeze the parameters, and log it."""
        for parameter in self._parameters:
            parameter.requires_grad_(not frozen)
            if frozen:
                # a gradient of zeros would let momentum and weight decay move it
                parameter.grad = None
        if not frozen:
            self._end_evaluation_mode(runner.model)
        self._frozen = frozen
        text = f'{"froze" if frozen else "unfroze"} {", ".join(self.names)}: '
        text += f'{sum(p.numel() for p in self._parameters):,} parameters in '
        text += f'{len(self._parameters)} tensors'
        if frozen:
            unit = 'epoch' if self.by_epoch else 'iteration'
            text += ' for good' if self.length < 0 else f' until {unit} {self.length}'
        runner.logger.info(
            f'FreezeBackboneHook: {text} (epoch {runner.epoch}, iteration {runner.iter}).'
        )

    def _end_evaluation_mode(self, model: nn.Module) -> None:
        """Set what is inside of the modules to the mode that the model's ``train()`` gives it.

        In the middle of an epoch nothing else does. It has to be the whole model's ``train()``,
        as a backbone's sets some of its modules to another mode.
        """
        inside = {m for top in self._modules for m in top.modules()}
        outside = [(m, m.training) for m in model.modules() if m not in inside]
        model.train()
        for module, training in outside:
            module.training = training

    def _check_can_train(self, runner: Runner, names: Dict[nn.Parameter, str]) -> None:
        """Refuse what would end the freezing without an error, and train nothing then."""
        if self.by_epoch and self.length and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                f'FreezeBackboneHook got freeze_epochs={self.length}, but train_cfg counts '
                'iterations, and its epoch is always 0: give freeze_iters instead.'
            )
        if not self._parameters:
            raise ValueError(
                f'FreezeBackboneHook is to train {", ".join(self.names)} later, but no parameter '
                'in it needs a gradient to begin with: set requires_grad=True there.'
            )
        held = {p for group in runner.optim_wrapper.param_groups for p in group['params']}
        left_out = [names[p] for p in self._parameters if p not in held]
        if left_out:
            raise ValueError(
                f'FreezeBackboneHook is to train {left_out[0]} later, but the optimizer does not '
                'hold it: freeze nothing before the optimizer is built, but with this hook.'
            )


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
