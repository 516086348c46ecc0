"""What a trained detector is refused for when it is used: device, checkpoint, class names."""

from typing import Any

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from torch import nn

from .launch_checks import LaunchError, class_lists

__all__ = ['check_device', 'check_is_dict', 'dataset_meta_of', 'name_classes']


def check_device(device: str) -> None:
    """Refuse a device that this machine, or this PyTorch, does not have.

    Args:
        device (str): Such as ``'cuda:0'``.

    Raises:
        LaunchError: If it cannot be used.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip('.')
        raise LaunchError(f'device {device!r} cannot be used: {reason}.') from error


def check_is_dict(checkpoint: Any) -> None:
    """Refuse a file that holds something else than weights.

    Args:
        checkpoint (Any): What the file holds.

    Raises:
        LaunchError: If it is not a dict.
    """
    if not isinstance(checkpoint, dict):
        raise LaunchError(
            f'the checkpoint holds a {type(checkpoint).__name__}, not a dict of weights: give '
            'a .pth file that training has written.'
        )


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
