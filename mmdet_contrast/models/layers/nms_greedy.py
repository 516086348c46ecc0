"""Greedy suppression for any pairwise overlap, without a loop over boxes."""

from typing import Callable, Tuple

import torch
from torch import Tensor

# Boxes of a block: a block's matrices stay in the cache, and memory grows with the number of boxes
# and not with its square.
_BLOCK = 256
# Boxes above which labels are handled one after the other.
_MANY = 2048


def greedy_suppression(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    threshold: float,
    overlaps: Callable[[Tensor, Tensor], Tensor],
) -> Tuple[Tensor, Tensor]:
    r"""Decide which boxes greedy non-maximum suppression keeps, and which one removes each other.

    In order of falling score (ties: in the given order), a box is kept if no kept box of its label
    overlaps it by more than the threshold. That is the only solution of

    .. math::
        k_j = \neg \exists\, i < j : k_i \wedge (o_{ij} > t)

    which is found by evaluating it for a whole block until it no longer changes (Cluster-NMS,
    arXiv 2005.03572): as many rounds as the longest chain of suppressions, not one for each box.

    Args:
        boxes (Tensor): (N, 4) float, (x1, y1, x2, y2).
        scores (Tensor): (N,) float.
        labels (Tensor): (N,) integers; boxes of different labels do not meet.
        threshold (float): Overlap above which a box is removed.
        overlaps (Callable): (A, 4), (B, 4) → (A, B) overlaps.

    Returns:
        tuple[Tensor, Tensor]: (K,) int64 indices of the kept boxes, by falling score, and (N,)
        int64: for each box the index *into the kept ones* of the box that removed it, or of
        itself.
    """
    order = scores.sort(descending=True, stable=True).indices
    if len(order) > _MANY:
        # Label by label: of many boxes, most pairs have different labels.
        by_label = order[labels[order].sort(stable=True).indices]
        _, counts = torch.unique_consecutive(labels[by_label], return_counts=True)
        groups = by_label.split(counts.tolist())
    else:
        groups = (order,)
    removers = torch.arange(len(order), device=order.device)
    for group in groups:
        _suppress(boxes, labels, group, threshold, overlaps, removers)
    kept = order[removers[order] == order]
    ranks = torch.zeros_like(order)
    ranks[kept] = torch.arange(len(kept), device=order.device)
    return kept, ranks[removers]


def _suppress(
    boxes: Tensor,
    labels: Tensor,
    order: Tensor,
    threshold: float,
    overlaps: Callable[[Tensor, Tensor], Tensor],
    removers: Tensor,
) -> None:
    """Write to ``removers`` which box removes each of those in ``order``, kept ones unchanged."""
    kept = order[:0]
    for chunk in order.split(_BLOCK):
        free = chunk
        # First the boxes kept in earlier blocks, all of which come before these.
        for start in range(0, len(kept), _BLOCK):
            part = kept[start : start + _BLOCK]
            first = _first(_hits(boxes, labels, part, free, threshold, overlaps))
            removers[free] = torch.where(first < 0, free, part[first])
            free = free[first < 0]
        hits = _hits(boxes, labels, free, free, threshold, overlaps).triu_(1)
        alive = torch.ones_like(free, dtype=torch.bool)
        while True:
            updated = ~(hits & alive[:, None]).any(0)
            if torch.equal(updated, alive):
                break
            alive = updated
        first = _first(hits & alive[:, None])
        removers[free] = torch.where(alive, free, free[first])
        kept = torch.cat((kept, free[alive]))


def _hits(
    boxes: Tensor,
    labels: Tensor,
    rows: Tensor,
    columns: Tensor,
    threshold: float,
    overlaps: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Tell which boxes of one label overlap by more than the threshold: (rows, columns) bool."""
    same = labels[rows][:, None] == labels[columns]
    return same & (overlaps(boxes[rows], boxes[columns]) > threshold)


def _first(hits: Tensor) -> Tensor:
    """Find the first True row of each column, -1 where there is none."""
    count = len(hits)
    if count == 0:
        return hits.new_full((hits.size(1),), -1, dtype=torch.long)
    # Not `argmax`: which of equal values it returns is left open by torch.
    rows = torch.arange(count, device=hits.device)[:, None]
    first = rows.where(hits, rows.new_tensor(count)).amin(0)
    return first.masked_fill(first == count, -1)
