"""Checkpoint files, read without running code that they hold.

A checkpoint is a pickle, and a pickle can call any function there is. The unpickler of this module
knows the few constructors that MMEngine's checkpoints need, and refuses everything else. Importing
the module makes it MMEngine's loader of local files, so that training, resuming, ``init_cfg``,
``init_detector`` and all others read files through it.
"""

import argparse
import builtins
import collections
import datetime
import os
import os.path as osp
import pickle
import re
from collections.abc import Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmdet_contrast.compat import PythonUnpickler

from .config import LaunchError

MapLocation = Optional[Union[str, torch.device, Callable, Dict[str, str]]]

_trusted = 0


@contextmanager
def trust_checkpoints(trust: bool = True) -> Iterator[None]:
    """Load every checkpoint of this process meanwhile, whatever code it runs.

    Args:
        trust (bool): False changes nothing.

    Yields:
        None: With the switch set.

    Example:
        >>> with trust_checkpoints():
        ...     model = init_detector('config.py', 'my_own.pth')
    """
    # a count: a run that failed may be collected, and end its switch, in the middle of another one
    global _trusted
    _trusted += trust
    try:
        yield
    finally:
        _trusted -= trust


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--trust-checkpoint`` to a command line.

    Args:
        parser (argparse.ArgumentParser): The parser.
    """
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load checkpoints with objects of any class, which can run any code',
    )


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(path: Union[str, 'os.PathLike[str]'], map_location: MapLocation = 'cpu') -> Any:
    """Load a local file that ``torch.save`` wrote.

    Args:
        path (str | PathLike): A local path; ``~`` is expanded.
        map_location: As in :func:`torch.load`.

    Returns:
        dict: What the file holds; under :func:`trust_checkpoints` it may be a module, too.

    Raises:
        FileNotFoundError: If there is no such file.
        LaunchError: If it is no checkpoint, is cut off, or needs a class that no checkpoint of
            MMEngine needs.
    """
    path = osp.expanduser(os.fspath(path))
    if not osp.isfile(path):
        raise FileNotFoundError(f'no checkpoint at {path!r}: the path is not an existing file.')
    reader = None if _trusted else _RESTRICTED
    try:
        content = torch.load(
            path, map_location=map_location, pickle_module=reader, weights_only=False
        )
    except _RefusedError as error:
        raise LaunchError(_describe_refusal(path, str(error))) from None
    # the bytes of a foreign file make an unpickler raise anything
    except Exception as error:
        if isinstance(error, ImportError) or 'CUDA' in str(error):
            raise
        raise LaunchError(
            f'{path!r} cannot be read as a checkpoint, which torch.save writes ({error!r:.150}): '
            'copy or download it again.'
        ) from error
    if not isinstance(content, (Mapping, nn.Module) if _trusted else Mapping):
        raise LaunchError(
            f'{path!r} holds a {type(content).__name__}, but a checkpoint is a dict with '
            "'state_dict', or a state_dict itself."
        )
    return content


class _RefusedError(pickle.UnpicklingError):
    """The message is the dotted name of what is refused."""


class _RestrictedUnpickler(PythonUnpickler):
    """Makes what MMEngine's checkpoints hold, and nothing else."""

    dispatch = dict(PythonUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        module = {'__builtin__': 'builtins', 'numpy._core.multiarray': _MULTIARRAY}.get(
            module, module
        )
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _RefusedError(f'{module}.{name}') from None

    def load_build(self) -> None:
        """Set the state of the last object: the step that could change classes and functions."""
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is collections.OrderedDict:
            made.__dict__.update(state)
        elif type(made) is HistoryBuffer:
            # its functions go to the class, which has them already
            state.pop('statistics_methods', None)
            made.__setstate__(state)
        elif type(made) in (np.ndarray, nn.Parameter):
            made.__setstate__(state)
        elif isinstance(made, np.dtype):
            _check_dtype(made, state)
        else:
            raise _RefusedError(f'the state of a {type(made).__name__}')

    dispatch[pickle.BUILD[0]] = load_build


_MULTIARRAY = 'numpy.core.multiarray'
_ARRAY, _ONE_CYCLE = object(), object()


def _make_array(kind: Any, shape: Any, dtype: Any) -> np.ndarray:
    if kind is not _ARRAY:
        raise _RefusedError('a subclass of numpy.ndarray')
    # its state follows
    return np.empty(0)


def _make_dtype(name: str, *_: Any) -> np.dtype:
    """Make a type of plain numbers or text: others hold addresses in memory."""
    if not isinstance(name, str) or not re.fullmatch(r'[biufcSU]\d+', name):
        raise _RefusedError(f'numpy.dtype({name!r})')
    return np.dtype(name)


def _check_dtype(made: np.dtype, state: Tuple) -> None:
    """Refuse a type whose state says something else than its name does."""
    _, order, *fields, size, _, _ = state[:8]
    if not made.newbyteorder(order).isnative or any(fields) or size not in (-1, made.itemsize):
        raise _RefusedError(f'numpy.dtype({made.str!r}) with {state}')


def _make_scalar(dtype: np.dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _encode(text: str, codec: str) -> bytes:
    """Make bytes from the text that pickle's second protocol writes for them."""
    if codec != 'latin1':
        raise _RefusedError(f'the codec {codec!r}')
    return text.encode('latin1')


def _get_method(owner: Any, name: str) -> Any:
    """Give the methods that MMEngine's objects keep; ``getattr`` itself would give any other."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        # a part of the state which is not used
        return None
    if owner is _ONE_CYCLE and name in ('_annealing_cos', '_annealing_linear'):
        return getattr(OneCycleParamScheduler, name)
    raise _RefusedError('builtins.getattr')


def _take(module: Any, *names: str) -> Dict[Tuple[str, str], Any]:
    return {(module.__name__, name): getattr(module, name) for name in names}


_ALLOWED: Dict[Tuple[str, str], Any] = {
    **_take(builtins, 'bytearray', 'bytes', 'complex', 'dict', 'float', 'frozenset'),
    **_take(builtins, 'int', 'list', 'set'),
    **_take(collections, 'Counter', 'OrderedDict', 'defaultdict', 'deque'),
    **_take(datetime, 'date', 'datetime', 'timedelta'),
    **_take(torch, 'Size', 'device'),
    **_take(torch, *(name for name, kind in vars(torch).items() if isinstance(kind, torch.dtype))),
    **_take(torch._utils, '_rebuild_parameter', '_rebuild_tensor', '_rebuild_tensor_v2'),
    **_take(nn.parameter, 'Parameter'),
    ('builtins', 'getattr'): _get_method,
    ('_codecs', 'encode'): _encode,
    ('numpy', 'ndarray'): _ARRAY,
    ('numpy', 'dtype'): _make_dtype,
    (_MULTIARRAY, '_reconstruct'): _make_array,
    (_MULTIARRAY, 'scalar'): _make_scalar,
    ('mmengine.config.config', 'ConfigDict'): ConfigDict,
    ('mmengine.logging.history_buffer', 'HistoryBuffer'): HistoryBuffer,
    ('mmengine.optim.scheduler.param_scheduler', 'OneCycleParamScheduler'): _ONE_CYCLE,
}


def _load(file: Any, **kwargs: Any) -> Any:
    return _RestrictedUnpickler(file, **kwargs).load()


# What torch.load asks of a pickle module.
_RESTRICTED = SimpleNamespace(__name__=__name__, Unpickler=_RestrictedUnpickler, load=_load)


def _describe_refusal(path: str, needed: str) -> str:
    if needed.startswith('ultralytics.'):
        return (
            f'{path!r} is a pickled model of Ultralytics (it needs {needed}): convert it with '
            f'`python tools/model_converters/ultralytics_to_mmdet.py {path} converted.pth '
            '--trust-checkpoint`, which runs the code in it.'
        )
    return (
        f'{path!r} needs {needed}, as no checkpoint of MMEngine does, and could run any code: if '
        'you trust its origin, give --trust-checkpoint (in a config, '
        'default_hooks.run_check.trust_checkpoint=True; in Python, trust_checkpoint=True or `with '
        'mmdet_contrast.utils.safe_loading.trust_checkpoints():`).'
    )
