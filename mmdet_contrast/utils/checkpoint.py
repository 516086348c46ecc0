"""Checkpoints: whether one fits a model and data, which classes it names, and the latest one."""

import os.path as osp
import re
from collections import Counter, OrderedDict
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, find_latest_checkpoint
from torch import nn

from .config import LaunchError, type_name

# Parts of a model, by the name of the module, that a test does without.
_TRAINING_ONLY = frozenset({'contrast'})


def refuse_misfits(
    misfits: List[str], given: str = 'the checkpoint', model: str = 'the model of the config'
) -> None:
    """Refuse a checkpoint that leaves parts of a model at random.

    Args:
        misfits (list[str]): As :func:`find_misfits` returns them.
        given (str): What names the checkpoint, for the message.
        model (str): What names the model, for the message.

    Raises:
        LaunchError: If there are any.
    """
    if misfits:
        more = f' (and {len(misfits) - 1} more such)' if len(misfits) > 1 else ''
        raise LaunchError(
            f'{given} does not fit {model}: {misfits[0]}{more}: give a checkpoint of this config, '
            'or the config that the checkpoint was trained with.'
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
    weights = _weights_of(checkpoint)
    if not training:
        for name, own in model.state_dict().items():
            fits = name not in weights or weights[name].shape == own.shape
            if _is_for_training(name) and not fits:
                del weights[name]
    try:
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        return [line.strip(' \t.') for line in str(error).splitlines()[1:]]
    parameters = _parameters_of(model)
    absent = _absent(model, missing)
    prefix = _find_prefix(parameters, weights) if len(absent) == len(parameters) else None
    hint = f', but {prefix}{{}} is, without which prefix it would fit' if prefix else ''
    return [f'{name} is not in it' + hint.format(name) for name in absent]


def check_start(model: nn.Module, checkpoint: Dict[str, Any], file: str) -> Optional[str]:
    """Judge a checkpoint that a training starts from; MMEngine loads what fits, be it nothing.

    Args:
        model (nn.Module): The model, without wrappers. What fits is loaded.
        checkpoint (dict): Of MMEngine, or a plain ``state_dict``.
        file (str): Where it comes from, for the message.

    Returns:
        str: A warning where less than half of the parameters fit, else None.

    Raises:
        LaunchError: If none fits.
    """
    weights = _weights_of(checkpoint)
    return _judge_fit(
        model,
        weights,
        weights,
        f'load_from {file!r}',
        lambda prefix: (
            f'its names begin with {prefix!r}: take it off with `python '
            f'tools/model_converters/rename_keys.py {file} renamed.pth --strip {prefix}`, and give '
            'renamed.pth'
        ),
        lambda part: f"set model.{part}.init_cfg=dict(type='Pretrained', checkpoint={file!r})",
    )


def check_pretrained(model: nn.Module) -> List[str]:
    """Judge the local files that ``init_cfg`` of a model and its parts will load.

    Modules with ``init_weights`` of their own read files in their own way, and are left out.

    Args:
        model (nn.Module): The model, without wrappers. What fits is loaded.

    Returns:
        list[str]: Warnings, where less than half of the parameters fit.

    Raises:
        FileNotFoundError: If a file is missing.
        LaunchError: If it is no checkpoint, or nothing of it fits.
    """
    warnings = (_check_part(*entry) for entry in _pretrained_parts(model))
    return [warning for warning in warnings if warning]


def _pretrained_parts(model: nn.Module) -> Iterator[Tuple[str, nn.Module, Mapping[str, Any]]]:
    for name, module in model.named_modules():
        if not isinstance(module, BaseModule) or module.is_init:
            continue
        if type(module).init_weights is not BaseModule.init_weights:
            continue
        given = module.init_cfg or ()
        for entry in (given,) if isinstance(given, dict) else given:
            kind, file = type_name(entry.get('type')), entry.get('checkpoint')
            if kind in ('Pretrained', 'PretrainedInit') and file and '://' not in file:
                yield '.'.join(('model', name) if name else ('model',)), module, entry


def _check_part(name: str, module: nn.Module, init_cfg: Mapping[str, Any]) -> Optional[str]:
    file, prefix = init_cfg['checkpoint'], init_cfg.get('prefix')
    whole = weights = _weights_of(CheckpointLoader.load_checkpoint(file, map_location='cpu'))
    given = f'{name}.init_cfg: {file!r}'
    if prefix is not None:
        begin, given = prefix.rstrip('.') + '.', f'{given} with prefix={prefix!r}'
        weights = OrderedDict((k[len(begin) :], v) for k, v in whole.items() if k.startswith(begin))
    return _judge_fit(
        module,
        weights,
        whole,
        given,
        lambda prefix: f'set prefix={prefix!r} in it',
        lambda part: f'set it as init_cfg of {name}.{part}',
    )


def _judge_fit(
    model: nn.Module,
    weights: 'OrderedDict[str, Any]',
    whole: Mapping[str, Any],
    given: str,
    with_prefix: Callable[[str], str],
    as_part: Callable[[str], str],
) -> Optional[str]:
    """Warn of weights that fill less than half of a model, and refuse those that fill nothing.

    The message says what to do, ``with_prefix`` or ``as_part``, where the names of the whole
    checkpoint would fit with a prefix, or are those of a part of the model.
    """
    own, filled = _parameters_of(model), _count_filled(model, weights)
    if 2 * filled >= len(own):
        return None
    if filled:
        return (
            f'{given} fills only {filled} of {len(own)} parameters, those of the same name and '
            'shape; the others start as without it.'
        )
    prefix, lacking = _find_prefix(own, whole), _find_prefix(whole, own)
    fix = f'it has names such as {next(iter(whole), None)!r}, not {next(iter(own), None)!r}'
    if prefix:
        fix = with_prefix(prefix)
    elif prefix == '':
        fix = 'leave out prefix'
    elif lacking:
        fix = as_part(lacking[:-1])
    raise LaunchError(f'{given} fits none of {len(own)} parameters: {fix}.')


def _weights_of(checkpoint: Mapping[str, Any]) -> 'OrderedDict[str, Any]':
    given = checkpoint.get('state_dict', checkpoint)
    weights = OrderedDict((re.sub(r'^module\.', '', name), v) for name, v in given.items())
    # The versions of the modules, by which some of them translate older names.
    weights._metadata = getattr(given, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    return weights


def _parameters_of(model: nn.Module) -> Dict[str, torch.Tensor]:
    """Give the parameters under the names of the state_dict, without what only training uses."""
    state = model.state_dict(keep_vars=True)
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, nn.Parameter) and not _is_for_training(name)
    }


def _count_filled(model: nn.Module, weights: 'OrderedDict[str, Any]') -> int:
    """Load the weights that fit, and count the parameters that have got theirs."""
    own = _parameters_of(model)
    fitting = OrderedDict((k, v) for k, v in weights.items() if k not in own or _alike(own[k], v))
    fitting._metadata = getattr(weights, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    try:
        # not by comparing names: modules translate older ones
        return len(own) - len(_absent(model, model.load_state_dict(fitting, strict=False)[0]))
    except RuntimeError:
        # of a translated name, or of a buffer, with another shape
        return len(own.keys() & fitting.keys())


def _absent(model: nn.Module, missing: Iterable[str]) -> List[str]:
    """Name the parameters that got no weights, by their names in the state_dict.

    A module may bear other names in its state_dict than among its parameters, which ``missing`` is
    about, or be in a model twice.
    """
    missing = set(missing)
    named = list(model.named_parameters(remove_duplicate=False))
    filled = {id(value) for name, value in named if name not in missing}
    return [name for name, value in _parameters_of(model).items() if id(value) not in filled]


def _find_prefix(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> Optional[str]:
    """Find what stands before most of the wanted names in those given, None if there is no such."""
    found: Counter = Counter()
    for name, value in given.items():
        parts = name.split('.')
        for i in range(len(parts)):
            rest = '.'.join(parts[i:])
            if rest in wanted and _alike(wanted[rest], value):
                found[name[: len(name) - len(rest)]] += 1
    return found.most_common(1)[0][0] if found else None


def _alike(first: Any, second: Any) -> bool:
    return getattr(first, 'shape', None) == getattr(second, 'shape', ())


def _is_for_training(name: str) -> bool:
    return not _TRAINING_ONLY.isdisjoint(name.split('.'))


def find_resumable(work_dir: str) -> Optional[str]:
    """Find the latest checkpoint of a work directory, which may have been copied or moved.

    MMEngine keeps its absolute path in ``last_checkpoint``, so that a copy would go on from the
    checkpoint of the original.

    Args:
        work_dir (str): The work directory.

    Returns:
        str: The checkpoint in it, or elsewhere if checkpoints are written elsewhere
        (``default_hooks.checkpoint.out_dir``); None if there is no ``last_checkpoint``.

    Raises:
        LaunchError: If the checkpoint that ``last_checkpoint`` names is not there.
    """
    recorded = find_latest_checkpoint(work_dir)
    if not recorded or '://' in recorded:
        return recorded
    path = _within(work_dir, recorded)
    if osp.exists(path):
        return path
    raise LaunchError(
        f'last_checkpoint of {work_dir} names {path!r}, which does not exist: put it there, or '
        'give the checkpoint to resume from (--resume PATH, load_from=PATH in a config).'
    )


def keep_own_files(checkpoint: Dict[str, Any], work_dir: str) -> None:
    """Let a resumed checkpoint name files of its own work directory, which may be a copy.

    MMEngine keeps the path of the best checkpoint, and removes that file when there is a better
    one: a copy would remove the original's.

    Args:
        checkpoint (dict): Of MMEngine; changed in place.
        work_dir (str): The work directory.
    """
    info = checkpoint.get('message_hub', {}).get('runtime_info', {})
    for key, path in info.items():
        if key.startswith('best_ckpt') and isinstance(path, str) and '://' not in path:
            info[key] = _within(work_dir, path)


def _within(work_dir: str, recorded: str) -> str:
    """Give the place of a file that may have moved with its work directory."""
    # the path may come from another system
    own = osp.join(work_dir, re.split(r'[\\/]', recorded)[-1])
    folder = osp.dirname(recorded)
    # beside another `last_checkpoint` it belongs to another work directory
    moved = osp.exists(own) or osp.exists(osp.join(folder, 'last_checkpoint'))
    return own if moved or not osp.exists(recorded) else recorded


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


def classes_of(checkpoint: dict) -> List[str]:
    """Return the classes that a checkpoint names.

    Args:
        checkpoint (dict): Of MMEngine, or a plain ``state_dict``.

    Returns:
        list[str]: Their names in the order of the head; none if it does not name them.
    """
    # MMDetection 2 wrote CLASSES, and its published weights are in use
    names = dataset_meta_of(checkpoint).get('classes')
    names = names or (checkpoint.get('meta') or {}).get('CLASSES') or ()
    return [names] if isinstance(names, str) else list(names)


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
    origin, names = 'the checkpoint', classes_of(checkpoint)
    if not names:
        data = dict(cfg.test_dataloader.dataset, lazy_init=True)
        lists = class_lists(DATASETS.build(data))
        origin = "the config's test data"
        names = lists[0] if lists and all(own == lists[0] for own in lists) else []
    detector = getattr(model, 'student', model)
    head = getattr(detector, 'bbox_head', None)
    head = getattr(getattr(detector, 'roi_head', None), 'bbox_head', None) if head is None else head
    number = getattr(head, 'num_classes', len(names))
    if number != len(names) or not names:
        raise LaunchError(
            f'{origin} names {len(names)} classes ({", ".join(names[:5])} …) and the head has '
            f'{number}: give the config and the checkpoint of one model, or set metainfo of the '
            'test data.'
        )
    return dict(dataset_meta_of(checkpoint), classes=names)


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
    trained = classes_of(checkpoint)
    for given in class_lists(dataset):
        same = sorted(map(str, trained)) == sorted(map(str, given))
        if trained and trained != given and (exact or same):
            raise LaunchError(
                f'{where} has the classes {given}, but the checkpoint was trained with {trained}, '
                'and labels are positions in that list: set metainfo=dict(classes=(...)) of the '
                'data set to the order of the checkpoint.'
            )
