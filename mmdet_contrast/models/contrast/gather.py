"""Rows of all ranks, joined."""

from typing import Optional, Sequence, Tuple

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def gather_rows(rows: Tensor) -> Tuple[Tensor, Tensor]:
    """Join the rows of all ranks, differentiably; ranks may bring different numbers.

    Every rank must call it. Without other ranks the rows come back as they are.

    Args:
        rows (Tensor): (M, ...) rows of this rank; M may be 0 and differ between the ranks.

    Returns:
        tuple[Tensor, Tensor]: the rows (sum of M, ...) in the order of the ranks, the same on
        every rank, and the rank of each.
    """
    if get_world_size() == 1:
        return rows, torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    counts = torch.cat(counts).tolist()
    # every rank sends a tensor of the same, non-empty shape: no rank may skip a collective
    padding = rows.new_zeros((max(1, max(counts)) - len(rows), *rows.shape[1:]))
    parts = _AllGather.apply(torch.cat((rows, padding)))
    joined = torch.cat([part[:count] for part, count in zip(parts, counts)])
    ranks = torch.arange(len(counts), device=rows.device)
    return joined, ranks.repeat_interleave(torch.tensor(counts, device=rows.device))


class _AllGather(Function):
    """Tensors of one shape of all ranks, stacked; what they give to this one's gradient, added."""

    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        return torch.stack(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        # a sum over many ranks of scaled gradients would not fit into half precision
        total = grad.to(torch.promote_types(grad.dtype, torch.float32), copy=True).contiguous()
        dist.all_reduce(total)
        return total[get_rank()].to(grad.dtype)


def gather_pairs(
    embeddings: Sequence[Tensor], codes: Sequence[Tensor], weights: Optional[Tensor] = None
) -> Tuple[Sequence[Tensor], Sequence[Tensor], Optional[Tensor], Tensor]:
    """Join what belongs to the pairs of all ranks; every rank must call it.

    Args:
        embeddings (Sequence[Tensor]): Tensors (M, ..., D) of one shape, joined differentiably.
        codes (Sequence[Tensor]): Integers (M,), such as labels.
        weights (Tensor, optional): (M,) weights; on all ranks or on none.

    Returns:
        tuple: embeddings, codes and weights of all ranks, and (sum of M,) bool: which are those of
        this rank.
    """
    joined, ranks = gather_rows(torch.cat(tuple(embeddings), dim=-1))
    numbers, _ = gather_rows(torch.stack(tuple(codes), dim=1))
    if weights is not None:
        weights, _ = gather_rows(weights)
    own = ranks == get_rank()
    return joined.chunk(len(embeddings), dim=-1), numbers.unbind(1), weights, own
