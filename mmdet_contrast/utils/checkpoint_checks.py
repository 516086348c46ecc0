"""Whether a checkpoint fits the model and the data of a run."""

import re
from collections import OrderedDict
from typing import Any, Dict

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from .detector_checks import dataset_meta_of
from .launch_checks import LaunchError, class_lists

__all__ = ['check_class_order', 'check_weights', 'refuse_misfits', 'unwrap_model']

# Parts of a model, by the name of the module, that a test does without.
_TRAINING_ONLY = frozenset({'contrast'})


def check_weights(model: nn.Module, checkpoint: Dict[str, Any], training: bool = False) -> None:
    """Load a checkpoint into a model, or refuse one that would leave parts of it at random.

    Args:
        model (nn.Module): The model, maybe in wrappers of MMEngine.
        checkpoint (dict): Of MMEngine, or a plain ``state_dict``.
        training (bool): Whether the model goes on training.

    Raises:
        LaunchError: If a parameter is missing or has another shape. What only training uses may be
            absent: a plain checkpoint tests a contrastive config; to a test it may have another
            shape, too.
    """
    model = unwrap_model(model)
    given = checkpoint.get('state_dict', checkpoint)
    weights = OrderedDict((re.sub(r'^module\.', '', name), v) for name, v in given.items())
    # The versions of the modules, by which some of them translate older names.
    weights._metadata = getattr(given, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    if not training:
        for name, own in model.state_dict().items():
            fits = name not in weights or weights[name].shape == own.shape
            if _is_for_training(name) and not fits:
                del weights[name]
    try:
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        problems = [line.strip(' \t.') for line in str(error).splitlines()[1:]]
    else:
        parameters = {name for name, _ in model.named_parameters()}
        problems = [
            f'{name} is not in it'
            for name in missing
            if name in parameters and not _is_for_training(name)
        ]
    if problems:
        others = f' (and {len(problems) - 1} more such)' if len(problems) > 1 else ''
        raise LaunchError(
            f'the checkpoint does not fit the model of the config: {problems[0]}{others}: give '
            'a checkpoint of this config, or the config that the checkpoint was trained with.'
        )


def _is_for_training(name: str) -> bool:
    return not _TRAINING_ONLY.isdisjoint(name.split('.'))


def unwrap_model(model: nn.Module) -> nn.Module:
    """Take MMEngine's wrappers, of several processes and of test-time augmentation, off a model.

    Args:
        model (nn.Module): The model.

    Returns:
        nn.Module: The model within.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_class_order(
    checkpoint: Dict[str, Any], dataset: Any, where: str, exact: bool = False
) -> None:
    """Refuse a data set that numbers the classes of a checkpoint in another order.

    Labels are positions in a list of classes, and nothing else would notice. Lists of different
    names pass: a data set may name some of the classes, or name them otherwise.

    Args:
        checkpoint (dict): Of MMEngine, whose ``meta`` may name the classes.
        dataset (Dataset): What the model is tested on, or goes on training on.
        where (str): Where the config describes the data set, for the message.
        exact (bool): Whether lists of different names are refused, too: where names follow from
            the data (folders), a class that is absent moves those after it.

    Raises:
        LaunchError: If both name the same classes in different orders.
    """
    trained = list(dataset_meta_of(checkpoint).get('classes') or ())
    for given in class_lists(dataset):
        same = sorted(map(str, trained)) == sorted(map(str, given))
        if trained and trained != given and (exact or same):
            raise LaunchError(
                f'{where} has the classes {given}, but the checkpoint was trained with {trained}, '
                'and labels are positions in that list: set metainfo=dict(classes=(...)) of the '
                'data set to the order of the checkpoint.'
            )


class _CheckpointFitHook(Hook):
    """Stops before a checkpoint is loaded that does not fit the model or the data."""

    priority = 'HIGHEST'

    def __init__(
        self,
        dataset: Any = None,
        where: str = '',
        exact: bool = False,
        training: bool = False,
    ) -> None:
        self.dataset = dataset
        self.where = where
        self.exact = exact
        self.training = training

    def after_load_checkpoint(self, runner: Runner, checkpoint: Dict[str, Any]) -> None:
        check_weights(runner.model, checkpoint, self.training)
        check_class_order(checkpoint, self.dataset, self.where, self.exact)


def refuse_misfits(
    runner: Runner,
    dataset: Any = None,
    where: str = '',
    exact: bool = False,
    training: bool = False,
) -> None:
    """Make a runner stop with a LaunchError where its checkpoint does not fit.

    MMEngine only warns then, and the numbers of a test would be those of random weights.

    Args:
        runner (Runner): A runner that has not loaded its checkpoint yet.
        dataset (Dataset, optional): Its data, whose classes are compared with the checkpoint's.
        where (str): Where the config describes the data set.
        exact (bool): See :func:`check_class_order`.
        training (bool): Whether the runner goes on training, see :func:`check_weights`.
    """
    runner.register_hook(_CheckpointFitHook(dataset, where, exact, training))
