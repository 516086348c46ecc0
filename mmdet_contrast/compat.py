"""What this package mends in its dependencies: the one place that knows of their breakages.

Each item says which versions need it, and does nothing with others. Importing the package applies
all of them but :func:`without_cuda_device`, so they hold as soon as a config's ``custom_imports``
has run: before a resume, before ``mim test``, and before ``init_detector`` or ``DetInferencer``
load a checkpoint.
"""

import os.path as osp
import re
import sys
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any, Callable, Container, Dict, Iterator, Optional, Tuple, Union
from unittest import mock

import torch
from mmengine.runner.checkpoint import CheckpointLoader

__all__ = [
    'apply',
    'extend_batched_nms',
    'load_from_local',
    'needs_local_loader',
    'without_cuda_device',
]


def parse_release(version: str) -> Tuple[int, int]:
    """Read major and minor number from a version, e.g. ``'2.13.0+cpu'`` → ``(2, 13)``.

    Args:
        version (str): A version as a package reports it.

    Returns:
        tuple[int, int]: Major and minor number, which compare as numbers do.

    Raises:
        ValueError: If the text does not start with two numbers.
    """
    match = re.match(r'(\d+)\.(\d+)', version)
    if match is None:
        raise ValueError(f'{version!r} is not a version: expected something like 2.13.0+cpu.')
    return int(match.group(1)), int(match.group(2))


def needs_local_loader(torch_version: str) -> bool:
    """Tell whether torch refuses MMEngine's own checkpoints by default (torch >= 2.6).

    Args:
        torch_version (str): ``torch.__version__``.

    Returns:
        bool: True from 2.6 on, where ``torch.load`` has ``weights_only=True`` as its default.
    """
    return parse_release(torch_version) >= (2, 6)


def load_from_local(
    filename: str, map_location: Optional[Union[str, Callable, Dict[str, str]]] = None
) -> Any:
    """Load a checkpoint from a local path, with the Python objects it holds.

    MMEngine 0.10 keeps its message hub in every training checkpoint. torch >= 2.6 refuses to load
    such objects unless told that the file is trusted, which broke resuming. A checkpoint can run
    code when it is loaded: give this only files whose origin you trust. Checkpoints from ``http``
    and the other remote schemes stay with MMEngine's loaders.

    Args:
        filename (str): A local path; ``~`` is expanded.
        map_location: As in :func:`torch.load`.

    Returns:
        Any: What the file holds, a dict for a checkpoint of MMEngine.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = osp.expanduser(filename)
    if not osp.isfile(path):
        raise FileNotFoundError(f'no checkpoint at {path!r}: the path is not an existing file.')
    return torch.load(path, map_location=map_location, weights_only=False)


@contextmanager
def without_cuda_device() -> Iterator[None]:
    """Let ``mmengine.dist.init_dist`` run on a torch without CUDA.

    MMEngine (0.10.7 and before) calls ``torch.cuda.set_device`` for every backend, gloo too, which
    raises where torch has no GPU; the rest of its set-up is what is wanted. Does nothing where
    torch sees a GPU.

    Yields:
        None: With ``torch.cuda.set_device`` switched off on a machine without a GPU.
    """
    if torch.cuda.is_available():
        yield
        return
    with mock.patch.object(torch.cuda, 'set_device', lambda device: None):
        yield


def extend_batched_nms(types: Container[str], run: Callable[..., Tuple[Any, Any]]) -> None:
    """Let ``test_cfg.nms.type`` name operations that mmcv does not have.

    mmcv (2.1.0) evaluates the name in the namespace of its own module, hides
    the labels from the operation and drops the boxes that it returns, and there is no registry to
    add to. So ``batched_nms`` is replaced, in mmcv and in every module that has imported it by
    name (all of MMDetection's heads have), by one that hands these types to ``run`` and everything
    else to mmcv, arguments untouched. Calling this again replaces the earlier extension.

    Args:
        types (Container[str]): The names to hand to ``run``; asked at every call.
        run (Callable): Takes the arguments of mmcv's ``batched_nms``.
    """
    # Here, so that what else this module offers needs no compiled mmcv. By name, because a function
    # hides the module `mmcv.ops.nms` from the import statement.
    current = import_module('mmcv.ops.nms').batched_nms
    stock = getattr(current, 'extends', current)

    @wraps(stock)
    def batched_nms(boxes, scores, idxs, nms_cfg, class_agnostic=False):
        # mmcv also takes a function as the type, which only mmcv knows what to do with.
        kind = nms_cfg.get('type') if nms_cfg is not None else None
        if isinstance(kind, str) and kind in types:
            return run(boxes, scores, idxs, nms_cfg, class_agnostic)
        return stock(boxes, scores, idxs, nms_cfg, class_agnostic)

    batched_nms.extends = stock
    for module in list(sys.modules.values()):
        # Not `getattr`: a lazy module must not be asked for an attribute it would import.
        names = getattr(module, '__dict__', {})
        if names.get('batched_nms') is current:
            names['batched_nms'] = batched_nms


def apply(torch_version: Optional[str] = None) -> Tuple[str, ...]:
    """Apply every item that the installed versions need; calling it again changes nothing.

    Args:
        torch_version (str, optional): Defaults to the version of the installed torch.

    Returns:
        tuple[str, ...]: The names of the items that are in force.
    """
    applied = []
    if needs_local_loader(torch_version or str(torch.__version__)):
        CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
        applied.append('load_from_local')
    return tuple(applied)


apply()
