"""Rows of all ranks, joined."""

from typing import Tuple

import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..losses import PairBatch


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
    numbers = torch.cat(all_gather(torch.tensor([len(rows)], device=rows.device)))
    counts = numbers.tolist()
    # every rank sends a tensor of the same, non-empty shape: no rank may skip a collective
    padding = rows.new_zeros((max(1, max(counts)) - len(rows), *rows.shape[1:]))
    parts = _AllGather.apply(torch.cat((rows, padding)))
    joined = torch.cat([part[:count] for part, count in zip(parts, counts)])
    ranks = torch.arange(len(counts), device=rows.device)
    return joined, ranks.repeat_interleave(numbers)


class _AllGather(Function):
    """Tensors of one shape of all ranks, stacked; what they give to this one's gradient, added."""

    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        return torch.stack(all_gather(own))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        # a sum over many ranks of scaled gradients would not fit into half precision
        total = grad.to(torch.promote_types(grad.dtype, torch.float32), copy=True).contiguous()
        all_reduce(total)
        return total[get_rank()].to(grad.dtype)


def gather_batch(batch: PairBatch) -> PairBatch:
    """Join the pairs of all ranks, differentiably; every rank must call it.

    Args:
        batch (PairBatch): The pairs of this rank.

    Returns:
        PairBatch: Those of all ranks, the same on every rank but for ``own``, which marks the pairs
        of this rank.
    """
    count = batch.num_pairs
    query, key = batch.rows[:, :count], batch.rows[:, count : 2 * count]
    pairs, ranks = gather_rows(torch.cat((query, key), dim=2).transpose(0, 1))
    codes, _ = gather_rows(torch.cat((batch.labels, batch.valid.to(batch.labels))).T)
    labels, valid = codes.T.chunk(2)
    rows, mask = list(pairs.transpose(0, 1).chunk(2, dim=2)), batch.fallback_mask
    if mask is not None:
        background, _ = gather_rows(batch.rows[:, 2 * count :].transpose(0, 1))
        rows.append(background.transpose(0, 1))
        free, _ = gather_rows(mask[0, 0].to(batch.labels))
        mask = free.bool()[None, None]
    return PairBatch(
        torch.cat(rows, dim=1),
        labels,
        valid.bool(),
        own=(ranks == get_rank())[None],
        fallback_mask=mask,
    )
