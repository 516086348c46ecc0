"""Checkpoints: whether one fits a model and data, and which classes it names."""

import re
from collections import OrderedDict
from typing import Any, Dict, List

from mmdet.registry import DATASETS
from mmengine.config import Config
from torch import nn

from .config import LaunchError

# Parts of a model, by the name of the module, that a test does without.
_TRAINING_ONLY = frozenset({'contrast'})


def check_weights(model: nn.Module, checkpoint: Dict[str, Any], training: bool = False) -> None:
    """Load a checkpoint into a model, or refuse one that would leave parts of it at random.

    Args:
        model (nn.Module): The model, without wrappers.
        checkpoint (dict): Of MMEngine, or a plain ``state_dict``.
        training (bool): See :func:`find_misfits`.

    Raises:
        LaunchError: If a parameter is missing or has another shape.
    """
    refuse_misfits(find_misfits(model, checkpoint, training))


def refuse_misfits(misfits: List[str]) -> None:
    """Raise a :class:`LaunchError` if :func:`find_misfits` has found something."""
    if misfits:
        more = f' (and {len(misfits) - 1} more such)' if len(misfits) > 1 else ''
        raise LaunchError(
            f'the checkpoint does not fit the model of the config: {misfits[0]}{more}: give a '
            'checkpoint of this config, or the config that the checkpoint was trained with.'
        )


def find_misfits(model: nn.Module, checkpoint: Dict[str, Any], training: bool = False) -> List[str]:
    """Load a checkpoint into a model, and list what does not fit.

    Args:
        model (nn.Module): The model, without wrappers.
        checkpoint (dict): Of MMEngine, or a plain ``state_dict``.
        training (bool): Whether the model goes on training. What only training uses may be absent:
            a plain checkpoint tests a contrastive config; in a test it may have another shape, too.

    Returns:
        list[str]: One line for each parameter that is missing or has another shape.
    """
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
        return [line.strip(' \t.') for line in str(error).splitlines()[1:]]
    parameters = {name for name, _ in model.named_parameters()}
    return [
        f'{name} is not in it'
        for name in missing
        if name in parameters and not _is_for_training(name)
    ]


def _is_for_training(name: str) -> bool:
    return not _TRAINING_ONLY.isdisjoint(name.split('.'))


def class_lists(dataset: Any) -> List[List[str]]:
    """Return the classes that a data set names.

    Args:
        dataset (Dataset): A data set.

    Returns:
        list[list[str]]: One list, or one for each part of concatenated data sets whose ``metainfo``
        differ, or none.
    """
    metainfo = getattr(dataset, 'metainfo', None) or {}
    parts = metainfo if isinstance(metainfo, list) else [metainfo]
    return [list(part['classes']) for part in parts if part.get('classes')]


def dataset_meta_of(checkpoint: dict) -> dict:
    """Return what a checkpoint says about the data it was trained on.

    Args:
        checkpoint (dict): Of MMEngine, or a plain ``state_dict``.

    Returns:
        dict: Its ``dataset_meta`` with keys in lower case. Of concatenated data sets with different
        ``metainfo`` it is a list, and the first part counts if all name the same classes, else
        nothing is known.
    """
    given = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    parts = given if isinstance(given, (list, tuple)) else [given]
    parts = [{str(key).lower(): value for key, value in part.items()} for part in parts]
    named = {tuple(part.get('classes') or ()) for part in parts}
    return parts[0] if len(named) == 1 else {}


def name_classes(model: nn.Module, checkpoint: dict, cfg: Config) -> dict:
    """Name the classes of a detector, one for each class of its head.

    Args:
        model (nn.Module): The detector.
        checkpoint (dict): Its checkpoint; the names are those in its ``meta``, if it has any.
        cfg (Config): Its config; otherwise the names are those of its test data.

    Returns:
        dict: The checkpoint's ``dataset_meta`` with keys in lower case, and ``classes``.

    Raises:
        LaunchError: If there are not as many names as classes.
    """
    meta = checkpoint.get('meta') or {}
    given = dataset_meta_of(checkpoint)
    origin, names = 'the checkpoint', given.get('classes') or meta.get('CLASSES')
    if not names:
        data = dict(cfg.test_dataloader.dataset, lazy_init=True)
        lists = class_lists(DATASETS.build(data))
        origin = "the config's test data"
        names = lists[0] if lists and all(own == lists[0] for own in lists) else ()
    detector = getattr(model, 'student', model)
    head = getattr(detector, 'bbox_head', None)
    head = getattr(getattr(detector, 'roi_head', None), 'bbox_head', None) if head is None else head
    number = getattr(head, 'num_classes', len(names or ()))
    names = [names] if isinstance(names, str) else list(names or ())
    if number != len(names) or not names:
        raise LaunchError(
            f'{origin} names {len(names)} classes ({", ".join(names[:5])} …) and the head has '
            f'{number}: give the config and the checkpoint of one model, or set metainfo of the '
            'test data.'
        )
    return dict(given, classes=names)


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
