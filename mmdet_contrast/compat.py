"""What this package fixes in its dependencies: the one place that knows of their breakages.

Each item says which versions need it, and does nothing with others. Importing this module changes
nothing.
"""

import os.path as osp
import pickle
import sys
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any, Callable, Iterator, List, Tuple

import torch
from torch import Tensor, nn

# The unpickler whose steps a subclass can change; that of `pickle.Unpickler` are fixed.
PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


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


def extend_focal_loss() -> None:
    """Let MMDetection's ``FocalLoss`` train in bfloat16 on a GPU.

    The kernel that it calls there (mmcv 2.1.0) has no bfloat16, and raises. It gets float32
    instead, in which it is more exact, too. Calling this again changes nothing.
    """
    module = import_module('mmdet.models.losses.focal_loss')
    stock = module._sigmoid_focal_loss
    if hasattr(stock, 'extends'):
        return

    @wraps(stock)
    def sigmoid_focal_loss(pred, *args):
        return stock(pred.float() if pred.dtype == torch.bfloat16 else pred, *args)

    sigmoid_focal_loss.extends = stock
    module._sigmoid_focal_loss = sigmoid_focal_loss


def extend_palette(make: Callable[..., List[Tuple[int, int, int]]]) -> None:
    """Let MMDetection's visualizer draw more classes than its palette has colours.

    MMDetection (3.3.0) raises an AssertionError there, in the middle of a validation: its data sets
    bring the colours of their own classes (80 of COCO, 20 of VOC), and a config that names others
    keeps them. The given colours keep their places. Calling this again replaces the extension.

    Args:
        make (Callable): From a number and a list of colours to that many, the given ones first.
    """
    module = import_module('mmdet.visualization.local_visualizer')
    stock = getattr(module.get_palette, 'extends', module.get_palette)

    @wraps(stock)
    def get_palette(palette, num_classes):
        if isinstance(palette, str) and palette in ('coco', 'citys', 'voc'):
            palette = stock(palette, 0)
        # a tuple of numbers is one colour for all classes
        if not isinstance(palette, (list, tuple)) or palette and isinstance(palette[0], int):
            return stock(palette, num_classes)
        return make(num_classes, palette)

    get_palette.extends = stock
    module.get_palette = get_palette


def keep_pictures_apart() -> None:
    """Let ``--show-dir`` keep pictures of the same name from different folders.

    MMDetection's hook (3.3.0) writes a picture under the bare name of its image, so that
    ``cam1/0.jpg`` and ``cam2/0.jpg`` overwrite each other. Now the second one gets its folder:
    ``0.jpg`` and ``cam2/0.jpg``. Calling this again changes nothing.
    """
    hook = import_module('mmdet.engine.hooks.visualization_hook').DetVisualizationHook
    stock = hook.after_test_iter
    if hasattr(stock, 'extends'):
        return

    @wraps(stock)
    def after_test_iter(self, runner, batch_idx, data_batch, outputs):
        if not self.draw or self.test_out_dir is None:
            return stock(self, runner, batch_idx, data_batch, outputs)
        top = osp.join(runner.work_dir, runner.timestamp, self.test_out_dir)
        owners = self.__dict__.setdefault('picture_owners', {})
        for sample in outputs:
            path = osp.abspath(sample.img_path)
            parts = path.split(osp.sep)
            names = [osp.join(*parts[-count:]) for count in range(1, len(parts) + 1)]
            name = next(name for name in names if owners.setdefault(name, path) == path)
            self.test_out_dir = osp.join(top, osp.dirname(name))
            stock(self, runner, batch_idx, data_batch, [sample])
        self.test_out_dir = top

    after_test_iter.extends = stock
    hook.after_test_iter = after_test_iter


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
