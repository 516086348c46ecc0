"""The maps of a dense head: its classes, scores and boxes, and what an image does not annotate."""

from contextlib import contextmanager
from typing import Any, Iterator, Sequence

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn


def join_levels(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Join the maps of all levels, each anchor of a cell by itself.

    Args:
        maps (Sequence[Tensor]): (N, A * C, H, W) of each level of a head with A anchors in a cell.
        channels (int): C.

    Returns:
        Tensor: (N, A, C, L) in float32 or float64, the L cells of all levels.
    """
    joined = torch.cat([level.flatten(2) for level in maps], dim=2)
    joined = joined.to(torch.promote_types(joined.dtype, torch.float32))
    return joined.unflatten(1, (-1, channels))


def object_weights(logits: Tensor) -> Tensor:
    """Weigh anchors by how far their highest score lies above the image's mean.

    The faint scores of thousands of anchors on the background, all much the same, would outweigh
    those of the few on objects; so the mean is taken off, as ERD (arXiv 2204.02136) selects what is
    well above it. The squares of scores would leave less: where images show no old objects, old
    boxes can only be kept where something looks a little like one.

    Args:
        logits (Tensor): (N, A, C, L) logits of the classes, of :func:`join_levels`.

    Returns:
        Tensor: (N, A, L), from 0 to 1.
    """
    scores = logits.amax(dim=2).sigmoid()
    return (scores - scores.mean(dim=(1, 2), keepdim=True)).clamp(min=0)


def decode_boxes(head: BaseDenseHead, maps: Sequence[Tensor]) -> Tensor:
    """Decode the box maps of a head with four numbers for each anchor.

    Args:
        head (BaseDenseHead): With a ``prior_generator`` and a ``bbox_coder``.
        maps (Sequence[Tensor]): (N, A * 4, H, W) of every level, as the head returned them in the
            mode, training or evaluation, that it is in.

    Returns:
        Tensor: (N, L, A, 4) boxes ``(x1, y1, x2, y2)`` in pixels of the L cells of all levels.
    """
    # FCOS multiplies by the stride when it predicts, not when it trains
    if getattr(head, 'norm_on_bbox', False) and head.training:
        maps = [level.float() * stride for level, stride in zip(maps, head.strides)]
    # priors lie cell by cell, the anchors of a cell together
    deltas = join_levels(maps, 4).permute(0, 3, 1, 2)
    sizes = [level.shape[-2:] for level in maps]
    priors = torch.cat(head.prior_generator.grid_priors(sizes, device=deltas.device))
    boxes = head.bbox_coder.decode(priors.repeat(len(deltas), 1), deltas.reshape(-1, 4))
    return boxes.view(deltas.shape)


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
    limit = torch.zeros_like(annotated, dtype=torch.float32).masked_fill_(annotated, torch.inf)

    def spare(level: Tensor) -> Tensor:
        anchors = level.shape[1] // annotated.shape[1]
        limits = limit[: len(level)].repeat(1, anchors)[..., None, None]
        level = level.view_as(level)
        if level.requires_grad:
            level.register_hook(lambda grad: torch.minimum(grad, limits.to(grad)))
        return level

    def hook(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        return ([spare(level) for level in outputs[0]], *outputs[1:])

    handle = head.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
