"""The one function of torchvision that Ultralytics needs here, for when no torchvision works.

A torchvision that is installed but does not fit the installed torch cannot be imported.
"""

import importlib.metadata
import sys
import types

import torch


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Keep boxes greedily by score; drop those whose IoU with a kept one exceeds the threshold."""
    order = scores.argsort(descending=True, stable=True)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while order.numel() > 0:
        best, rest = order[0], order[1:]
        kept.append(best)
        corner_min = torch.maximum(boxes[best, :2], boxes[rest, :2])
        corner_max = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        inter = (corner_max - corner_min).clamp(min=0).prod(dim=1)
        order = rest[inter / (area[best] + area[rest] - inter) <= iou_threshold]
    return torch.stack(kept) if kept else order.new_zeros(0)


def install() -> None:
    """Put the stub in the place of torchvision in this process, if the real one does not import."""
    try:
        import torchvision  # noqa: F401

        return
    except (ImportError, RuntimeError):
        pass
    stub, ops = types.ModuleType('torchvision'), types.ModuleType('torchvision.ops')
    ops.nms, stub.ops, stub.__version__ = nms, ops, '0.0.0'
    sys.modules.update({'torchvision': stub, 'torchvision.ops': ops})
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: '0.0.0' if name == 'torchvision' else version(name)
