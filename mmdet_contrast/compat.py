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
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

__all__ = [
    'apply',
    'coco_evaluations',
    'extend_batched_nms',
    'load_from_local',
    'needs_local_loader',
    'rename_state',
    'reverses_channels',
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
    stock, torch.cuda.set_device = torch.cuda.set_device, lambda device: None
    try:
        yield
    finally:
        torch.cuda.set_device = stock


@contextmanager
def coco_evaluations() -> Iterator[List[Any]]:
    """Keep the evaluations that MMDetection's ``CocoMetric`` makes meanwhile.

    ``CocoMetric`` (3.3.0) returns figures rounded to three digits, takes one class for another
    where the category ids do not ascend, and keeps its evaluation to itself; making a second one
    would double the time.

    Yields:
        list[COCOeval]: Fills with the evaluations of pycocotools.
    """
    coco_metric = import_module('mmdet.evaluation.metrics.coco_metric')
    stock = {name: getattr(coco_metric, name) for name in ('COCOeval', 'COCOevalMP')}
    kept: List[Any] = []

    def keeping(cls: type) -> Callable[..., Any]:
        # a function, not a subclass: COCOevalMP may have to be pickled
        def make(*args: Any, **kwargs: Any) -> Any:
            kept.append(cls(*args, **kwargs))
            return kept[-1]

        return make

    try:
        for name, cls in stock.items():
            setattr(coco_metric, name, keeping(cls))
        yield kept
    finally:
        for name, cls in stock.items():
            setattr(coco_metric, name, cls)


def extend_batched_nms(kind: str, average: Callable[..., Tensor]) -> None:
    """Let ``test_cfg.nms.type`` name an operation that moves the boxes which ordinary NMS keeps.

    mmcv (2.1.0) looks a type up among the names of ``mmcv.ops.nms``, so an operation that only
    chooses boxes can be put there. It drops the boxes that an operation returns, and most heads
    take theirs from the tensor that they gave. So its ``batched_nms`` is replaced, there and in
    every module that has imported it by name (all of MMDetection's heads have), by one that writes
    the moved boxes to the rows of that tensor. Calling this again replaces the earlier extension.

    Args:
        kind (str): The type.
        average (Callable): From boxes (N, 4), scores (N,), labels (N,), kept indices (K,) and the
            IoU threshold to boxes (K, 4).
    """
    # Here, so that what else this module offers needs no compiled mmcv. By name, because a function
    # hides the module `mmcv.ops.nms` from the import statement.
    current = import_module('mmcv.ops.nms').batched_nms
    stock = getattr(current, 'extends', current)

    @wraps(stock)
    def batched_nms(boxes, scores, idxs, nms_cfg, class_agnostic=False):
        if nms_cfg is None or nms_cfg.get('type') != kind:
            return stock(boxes, scores, idxs, nms_cfg, class_agnostic)
        cfg = dict(nms_cfg, type='nms')
        dets, keep = stock(boxes, scores, idxs, cfg, class_agnostic)
        labels = torch.zeros_like(idxs) if cfg.get('class_agnostic', class_agnostic) else idxs
        with torch.no_grad():
            boxes[keep] = average(boxes, scores, labels, keep, cfg['iou_threshold'])
        return torch.cat((boxes[keep], dets[:, 4:]), dim=1), keep

    batched_nms.extends = stock
    for module in list(sys.modules.values()):
        # Not `getattr`: a lazy module must not be asked for an attribute it would import.
        names = getattr(module, '__dict__', {})
        if names.get('batched_nms') is current:
            names['batched_nms'] = batched_nms


def reverses_channels(preprocessor: nn.Module) -> bool:
    """Tell whether a data preprocessor turns BGR into RGB or back.

    MMEngine (0.10.7 and before) keeps that in a private attribute.

    Args:
        preprocessor (nn.Module): A data preprocessor.

    Returns:
        bool: True if the channels are reversed.
    """
    return bool(getattr(preprocessor, '_channel_conversion', False))


def rename_state(module: nn.Module, saved: Callable, loaded: Callable) -> None:
    """Rename the weights of a module as they are saved and loaded.

    torch has public methods for these hooks from 2.5 on.

    Args:
        module (nn.Module): The module.
        saved (Callable): ``(module, state, prefix, metadata)``, changes ``state`` in place.
        loaded (Callable): ``(state, prefix, ...)``, changes ``state`` in place.
    """
    module._register_state_dict_hook(saved)
    module._register_load_state_dict_pre_hook(loaded)


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
