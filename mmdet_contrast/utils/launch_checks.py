"""What a run is refused for, in one sentence each: options, checkpoints, data."""

import difflib
import inspect
import os
import os.path as osp
import pickle
import re
import traceback
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any, Dict, Iterator, List, Optional, Sized

import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.runner import Runner
from torch.utils.data import DataLoader

__all__ = [
    'LaunchError',
    'check_batches',
    'check_checkpoint',
    'check_dataset',
    'check_heads',
    'explained',
    'merge_options',
]

# Top-level keys that MMEngine, MMDetection or this module read although ``Runner`` has no
# parameter of that name.
_EXTRA_KEYS = (
    'auto_scale_lr',
    'compile',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)


class LaunchError(ValueError):
    """A run that cannot start; the message is one sentence that says what to change."""


def merge_options(cfg: Config, options: Dict[str, Any]) -> None:
    """Merge dotted options, refusing a key that nothing reads (a typo would change nothing).

    Args:
        cfg (Config): Config; changed in place.
        options (dict): Dotted keys and their new values.

    Raises:
        LaunchError: If a key is read by nothing or cannot be merged.
    """
    runner_keys = [key for key in inspect.signature(Runner.__init__).parameters if key != 'self']
    known = sorted({*cfg.keys(), *runner_keys, *_EXTRA_KEYS})
    for key in options:
        top = key.split('.')[0]
        if top not in known:
            close = difflib.get_close_matches(top, known, n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'the config has: {sorted(cfg)}.'
            raise LaunchError(
                f'--cfg-options key {key!r}: the config has no {top!r} and nothing reads it; {hint}'
            )
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        text = error.args[0] if error.args else error
        raise LaunchError(
            f'--cfg-options {sorted(options)} cannot be merged into the config: {text}'
        ) from error


def check_checkpoint(path: Optional[str], what: str) -> None:
    """Refuse a local checkpoint that is not there (``scheme://`` addresses are not looked at).

    Args:
        path (str, optional): File or address; None is nothing to check.
        what (str): Where it was given, for the message.

    Raises:
        LaunchError: If the file does not exist.
    """
    if path is None:
        return
    path = os.fspath(path)
    if '://' not in path and not osp.isfile(path):
        raise LaunchError(
            f'{what} {path!r} does not exist (looked in {os.getcwd()}): give the path of a '
            'checkpoint (.pth).'
        )


@contextmanager
def explained(cfg: Config) -> Iterator[None]:
    """Turn what MMEngine raises for a wrong config or wrong data into one sentence.

    Only what is certain to come from the config or the data is turned; any other exception passes
    with its traceback.

    Args:
        cfg (Config): The config that is run.

    Raises:
        LaunchError: If a file is not there, an image, an annotation file or a checkpoint cannot be
            decoded, a type is not registered, or a type does not take an argument.
    """
    config = cfg.filename or '(no file)'
    try:
        yield
    except FileNotFoundError as error:
        weights = _find(r"no checkpoint at '([^']*)'", error) or _find(
            r'(\S+) can not be found\.', error
        )
        if weights is not None:
            raise LaunchError(
                f'checkpoint {weights!r}, which config {config!r} starts from, does not exist '
                f'(looked in {os.getcwd()}): make it (tools/model_converters/export_backbone.py '
                'writes pre-trained backbones), or set init_cfg or load_from.'
            ) from error
        path = _find(r"No such file or directory: '([^']*)'", error)
        if path is None:
            raise
        raise LaunchError(
            f'file {path!r}, which config {config!r} leads to, does not exist (looked in '
            f'{os.getcwd()}): make the data, or set data_root, ann_file and data_prefix.'
        ) from error
    except AssertionError as error:
        path = _find(r'failed to load image: ([^\n]*)', error)
        if path is None:
            raise
        raise LaunchError(
            f'image {path!r} is damaged or not an image, so it cannot be decoded: replace it, or '
            'take it out of the annotation file.'
        ) from error
    except TypeError as error:
        text = _find(r"(\S+ got an unexpected keyword argument '\w*')", error)
        if text is None or not _while_building(error):
            raise
        raise LaunchError(
            f'config {config!r} cannot be built, as {text}: correct or remove that key in the '
            'config or in --cfg-options.'
        ) from error
    except KeyError as error:
        text = _find(r'(\S+ is not in the \S+ registry)', error)
        if text is None:
            raise
        raise LaunchError(
            f'config {config!r} cannot be built, as {text}: correct the type, or add the module '
            'that registers it to custom_imports.'
        ) from error
    except JSONDecodeError as error:
        files = [file for file in _annotation_files(cfg) if not _is_json(file)]
        if not files:
            raise
        raise LaunchError(
            f'annotation file {files[0]!r} is damaged or not JSON ({error}): make or download it '
            'again.'
        ) from error
    except (pickle.UnpicklingError, EOFError) as error:
        raise LaunchError(
            f'the checkpoint that is loaded is damaged or not a checkpoint ({_last_line(error)}): '
            'give a .pth file that training has written.'
        ) from error


def _find(pattern: str, error: BaseException) -> Optional[str]:
    """Find a pattern in an exception; that of a data loader's process ends a whole traceback."""
    found = re.findall(pattern, str(error.args[0] if isinstance(error, KeyError) else error))
    return found[-1] if found else None


def _annotation_files(node: Any, root: str = '') -> List[str]:
    if isinstance(node, (list, tuple)):
        return [file for child in node for file in _annotation_files(child, root)]
    if not isinstance(node, (dict, Config)):
        return []
    root = node.get('data_root') or root
    file = node.get('ann_file')
    own = [osp.join(root, file)] if isinstance(file, str) and file else []
    return own + [found for child in node.values() for found in _annotation_files(child, root)]


def _is_json(file: str) -> bool:
    try:
        load(file, file_format='json')
    except (OSError, ValueError):
        return False
    return True


def _while_building(error: BaseException) -> bool:
    """Tell a key that a type of the config does not take from a wrong call in its code."""
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return 'build_from_cfg' in frames and frames[-1] in ('build_from_cfg', '__init__')


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


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


def check_dataset(dataset: Any, where: str) -> None:
    """Refuse a data set without images, or whose classes are not those of its annotation file.

    MMDetection leaves out a class that the annotation file does not name, and the classes after it
    move up by one, without a word. It numbers classes in the order of the file, whatever the order
    of ``metainfo``.

    Args:
        dataset (Dataset): A data set; those inside of a wrapper are looked at.
        where (str): Where the config describes it, for the message.

    Raises:
        LaunchError: If there is no image, or a class of ``metainfo`` is not in the file, or in
            another order.
    """
    for inner in [*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)]:
        if inner is not None:
            check_dataset(inner, where)
    classes = next(iter(class_lists(dataset)), None)
    found, file = getattr(dataset, 'cat_ids', None), getattr(dataset, 'ann_file', None)
    if classes and file and found is not None and len(found) < len(classes):
        content = load(file, backend_args=getattr(dataset, 'backend_args', None))
        names = [category['name'] for category in content['categories']]
        absent = [name for name in classes if name not in names]
        raise LaunchError(
            f'{where}: metainfo has the classes {absent}, which annotation file {file!r} does not '
            f'name; it names {names}: set metainfo=dict(classes=...) to names among these.'
        )
    # the names that MMDetection's own types have in the order of their files
    given = getattr(type(dataset), 'METAINFO', {}).get('classes') or ()
    stock = type(dataset).__module__.startswith('mmdet.') and tuple(classes or ()) == tuple(given)
    own = classes and not stock
    if own and file and found is not None and len(found) == len(classes):
        content = load(file, backend_args=getattr(dataset, 'backend_args', None))
        names = {category['id']: category['name'] for category in content['categories']}
        order = [names[i] for i in found]
        if order != list(classes):
            raise LaunchError(
                f'{where}: metainfo has the classes {tuple(classes)}, and annotation file {file!r} '
                f'lists them as {tuple(order)}, which is the order that MMDetection numbers them '
                'in: give metainfo the order of the file.'
            )
    if isinstance(dataset, Sized) and len(dataset) == 0:
        raise LaunchError(
            f'{where}: no image is left in the data set{f" of {file!r}" if file else ""}: check '
            'the annotation file, and filter_cfg, which leaves images without boxes out.'
        )


def check_batches(loader: DataLoader, where: str) -> None:
    """Refuse a data loader whose epochs have no batch, of which MMEngine says no more than "got 0".

    Args:
        loader (DataLoader): The loader of a training that counts epochs.
        where (str): Where the config describes it, for the message.

    Raises:
        LaunchError: If the images of a process are fewer than a batch, and incomplete batches are
            left out.
    """
    if len(loader) > 0:
        return
    batches = loader.batch_sampler
    count = len(batches.sampler)
    raise LaunchError(
        f'{where}: a process has {count} images of the {len(loader.dataset)}, which do not fill a '
        f'batch of batch_size={batches.batch_size}, and drop_last=True leaves an incomplete one '
        f'out: set {where}.batch_size to {count} or less, or give more images.'
    )


def check_heads(model: torch.nn.Module, dataset: Any, where: str) -> None:
    """Refuse a head with fewer classes than its data set, which would learn the rest as background.

    Args:
        model (nn.Module): A detector.
        dataset (Dataset): What it is trained on.
        where (str): Where the config describes the data set, for the message.

    Raises:
        LaunchError: If ``num_classes`` of a head is below the number of the data set's classes.
    """
    from mmdet.models.dense_heads import RPNHead
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.roi_heads.bbox_heads import BBoxHead

    classes = max(class_lists(dataset), key=len, default=[])
    for name, module in model.named_modules():
        if not isinstance(module, (BaseDenseHead, BBoxHead)) or isinstance(module, RPNHead):
            continue
        number = getattr(module, 'num_classes', None)
        # Proposals are of one class whatever the head they come from.
        if number is not None and number < len(classes) and not name.endswith('rpn_head'):
            raise LaunchError(
                f'{name} has num_classes={number}, but {where} has the {len(classes)} classes '
                f'{list(classes)}: set num_classes={len(classes)} in the head.'
            )
