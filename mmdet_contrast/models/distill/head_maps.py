"""The maps of a dense head: its classes, scores and boxes, and what an image does not annotate."""

from contextlib import contextmanager
from typing import Any, Iterator, List, Sequence

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn


def select_classes(logits: Tensor, num_classes: int, index: Sequence[int]) -> Tensor:
    """Return the logits of some classes, each anchor of a cell by itself.

    Args:
        logits (Tensor): (N, A * C, H, W) class map of a head with A anchors in a cell.
        num_classes (int): C, the head's ``cls_out_channels``.
        index (Sequence[int]): The T classes wanted.

    Returns:
        Tensor: (N * A, T, H, W); no copy where all classes are wanted in their order.
    """
    grouped = _by_anchor(logits, num_classes)
    return grouped if list(index) == list(range(num_classes)) else grouped[:, index]


def object_weights(maps: Sequence[Tensor], num_classes: int) -> List[Tensor]:
    """Weigh anchors by how far their highest score lies above the image's mean.

    The faint scores of thousands of anchors on the background, all much the same, would outweigh
    those of the few on objects; so the mean is taken off, as ERD (arXiv 2204.02136) selects what is
    well above it. The squares of scores would leave less: where images show no old objects, old
    boxes can only be kept where something looks a little like one.

    Args:
        maps (Sequence[Tensor]): (N, A * C, H, W) class maps of all levels of a head with A anchors
            in a cell, in logits.
        num_classes (int): C, the head's ``cls_out_channels``.

    Returns:
        list[Tensor]: (N * A, H, W) in float32, from 0 to 1, by level.
    """
    batch = len(maps[0])
    scores = [_by_anchor(level, num_classes).float().amax(dim=1).sigmoid() for level in maps]
    mean = torch.cat([level.reshape(batch, -1) for level in scores], dim=1).mean(dim=1)
    return [
        (level - mean.repeat_interleave(len(level) // batch)[:, None, None]).clamp(min=0)
        for level in scores
    ]


def decode_boxes(head: BaseDenseHead, maps: Sequence[Tensor]) -> List[Tensor]:
    """Decode the box maps of a head with four numbers for each anchor.

    Args:
        head (BaseDenseHead): With a ``prior_generator`` and a ``bbox_coder``.
        maps (Sequence[Tensor]): (N, A * 4, H, W) of every level, as the head returned them in the
            mode, training or evaluation, that it is in.

    Returns:
        list[Tensor]: (N * A, H, W, 4) boxes ``(x1, y1, x2, y2)`` in pixels, in float32, by level.
    """
    sizes = [level.shape[-2:] for level in maps]
    priors = head.prior_generator.grid_priors(sizes, device=maps[0].device)
    decoded = []
    for level, (size, prior) in enumerate(zip(sizes, priors)):
        batch, channels = maps[level].shape[:2]
        anchors = channels // 4
        # priors lie cell by cell, the anchors of a cell together
        deltas = maps[level].float().permute(0, 2, 3, 1).reshape(-1, 4)
        # FCOS multiplies by the stride when it predicts, not when it trains
        if getattr(head, 'norm_on_bbox', False) and head.training:
            deltas = deltas * head.strides[level]
        boxes = head.bbox_coder.decode(prior.repeat(batch, 1), deltas)
        boxes = boxes.view(batch, *size, anchors, 4).permute(0, 3, 1, 2, 4)
        decoded.append(boxes.flatten(0, 1))
    return decoded


def without_negative_sides(boxes: Tensor) -> Tensor:
    """Give boxes whose far corner lies before the near one a side of 0 instead.

    A head that predicts distances as they come, as small RTMDets do, gives such boxes on the
    background; detection drops them, and GIoU, made for boxes with an area, has no bound on them.

    Args:
        boxes (Tensor): (M, 4) boxes ``(x1, y1, x2, y2)``.

    Returns:
        Tensor: (M, 4) boxes; the others are as they were.
    """
    near, far = boxes.chunk(2, dim=1)
    return torch.cat((near, torch.maximum(near, far)), dim=1)


@contextmanager
def spare_unannotated(head: nn.Module, annotated: Tensor) -> Iterator[None]:
    """Keep a head from learning that what an image does not annotate is background.

    For a class that an image does not annotate, the gradient into the class map may raise scores,
    where a box of that class is given all the same, and never lower them. It takes away no more
    than that: the other classes, and what compares the maps with a teacher, learn as before. With
    sigmoid scores classes do not compete, so it is a weight of 0 for the class's negatives.

    Args:
        head (nn.Module): A dense head, whose ``forward`` returns the class maps first.
        annotated (Tensor): (N, C) bool: whether image n annotates class c.

    Yields:
        None: While the context is open, the losses of the head spare these classes.
    """

    def spare(level: Tensor) -> Tensor:
        anchors = level.shape[1] // annotated.shape[1]
        mask = annotated[: len(level)].repeat(1, anchors)[..., None, None]
        level = level.view_as(level)
        if level.requires_grad:
            level.register_hook(lambda grad: torch.where(mask, grad, grad.clamp(max=0)))
        return level

    def hook(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        return ([spare(level) for level in outputs[0]], *outputs[1:])

    handle = head.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _by_anchor(logits: Tensor, num_classes: int) -> Tensor:
    """Return (N * A, C, H, W)."""
    batch, channels, height, width = logits.shape
    return logits.reshape(batch * (channels // num_classes), num_classes, height, width)
