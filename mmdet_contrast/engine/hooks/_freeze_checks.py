"""What has to hold before modules can be frozen and trained later."""

from difflib import get_close_matches
from typing import Dict, Iterable, List, Sequence, Set

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ._freeze_stage import FreezeStage

NAME = 'FreezeBackboneHook'


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model without the wrapper of distributed training."""
    return model.module if is_model_wrapper(model) else model


def optimizers_of(runner: Runner) -> List[Optimizer]:
    """Return PyTorch's optimizers of a runner."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [item.optimizer for item in wrappers]


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return the module with a dotted name.

    Raises:
        ValueError: If there is none, or if it has no parameters.
    """
    parent, parent_name = model, ''
    for part in name.split('.'):
        children = dict(parent.named_children())
        if part not in children:
            names = [found for found, _ in model.named_modules() if found]
            close = get_close_matches(name, names, n=5)
            holder = repr(parent_name) if parent_name else 'the model'
            raise ValueError(
                f'{NAME}: modules names {name!r}, which matches nothing: {holder} has '
                f'{", ".join(children) or "no modules in it"}'
                + (f' (similar names: {", ".join(close)}).' if close else '.')
            )
        parent, parent_name = children[part], f'{parent_name}.{part}'.lstrip('.')
    if next(parent.parameters(), None) is None:
        raise ValueError(
            f'{NAME}: modules names {name!r}, a {type(parent).__name__} without parameters, so '
            'that there is nothing to freeze: leave it out.'
        )
    return parent


def check_loop(runner: Runner, stages: Iterable[FreezeStage]) -> None:
    """Refuse epochs where the loop counts none."""
    for stage in stages:
        if (stage.freeze_epochs or 0) > 0 and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                f'{NAME} got freeze_epochs={stage.freeze_epochs}, but train_cfg counts '
                'iterations, and its epoch is always 0: give freeze_iters instead.'
            )


def check_wrapper(model: nn.Module) -> None:
    """Refuse wrappers that wait for gradients of frozen parameters."""
    if not is_model_wrapper(model):
        return
    if not isinstance(model, DistributedDataParallel):
        raise ValueError(
            f'{NAME} cannot freeze modules inside of {type(model).__name__}: set '
            "model_wrapper_cfg=dict(type='MMDistributedDataParallel', "
            'find_unused_parameters=True).'
        )
    if not model.find_unused_parameters or model.static_graph:
        raise ValueError(
            f'{NAME} freezes parameters whose gradients MMDistributedDataParallel waits for: set '
            'find_unused_parameters=True in the config (in model_wrapper_cfg, if the config has '
            'one, and no static_graph=True there).'
        )


def check_optimizer(runner: Runner, names: Dict[int, str], wanted: Set[int]) -> None:
    """Refuse parameters that the optimizer does not know, as unfreezing would not train them.

    Args:
        runner (Runner): The runner, its optimizer built.
        names (dict[int, str]): Names of the model's parameters by ``id``.
        wanted (set[int]): ``id`` of the parameters that are to be trained later.
    """
    known = {
        id(parameter)
        for optimizer in optimizers_of(runner)
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    left_out = [names[key] for key in names if key in wanted - known]
    if left_out:
        raise ValueError(
            f'{NAME} is to train {_some(left_out)} later, but the optimizer does not hold them, '
            'as a parameter that needs no gradient when the optimizer is built is left out: '
            'leave the freezing to this hook.'
        )


def check_train_keeps(model: nn.Module, names: Dict[int, str], wanted: Set[int]) -> None:
    """Refuse modules whose ``train()`` freezes parameters again.

    Backbones with ``frozen_stages`` do so at the beginning of each epoch.

    Args:
        model (nn.Module): The model; it is left in training mode.
        names (dict[int, str]): Names of the model's parameters by ``id``.
        wanted (set[int]): ``id`` of the parameters that are to be trained later.
    """
    parameters = [p for p in model.parameters() if id(p) in wanted and p.is_floating_point()]
    before = [p.requires_grad for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    model.train()
    again = [names[id(p)] for p in parameters if not p.requires_grad]
    for parameter, value in zip(parameters, before):
        parameter.requires_grad_(value)
    if not again:
        return
    owner = next(
        (
            name
            for name, module in model.named_modules()
            if name
            and again[0].startswith(f'{name}.')
            and isinstance(getattr(module, 'frozen_stages', None), int)
        ),
        None,
    )
    if owner is None:
        raise ValueError(
            f'{NAME} is to train {_some(again)} later, but train() of the model freezes them '
            'again: switch that off in the model, or name other modules.'
        )
    stages = model.get_submodule(owner).frozen_stages
    raise ValueError(
        f'{NAME} is to train {_some(again)} later, but {owner}.frozen_stages={stages} freezes '
        f'them again at each epoch: set model.{owner}.frozen_stages=-1 (and norm_eval=False, if '
        'the statistics of batch normalisation are to move then, too), or freeze_epochs=-1.'
    )


def _some(names: Sequence[str]) -> str:
    """Name the first and say how many there are."""
    if len(names) == 1:
        return names[0]
    return f'{len(names)} parameters ({names[0]} to {names[-1]})'
