"""Weighted k-nearest-neighbour classification of embeddings."""

from typing import Dict, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def knn_predict(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
    query_chunk: int = 1024,
    bank_chunk: int = 65536,
) -> Tensor:
    r"""Rank the classes of embeddings by the votes of their nearest neighbours.

    The weighted vote of Wu et al. (arXiv 1805.01978, section 3.4), which became the usual monitor
    of representations: the k entries of the bank with the largest cosine similarity :math:`s` vote
    for their class with the weight :math:`\exp(s / \tau)`. The search is exact; both sides are cut
    in chunks, so that memory does not grow with their product.

    Args:
        queries (Tensor): (Q, D) embeddings of any length.
        bank (Tensor): (N, D) embeddings with known classes, N at least 1.
        bank_labels (Tensor): (N,) class indices, from 0 to ``num_classes - 1``.
        num_classes (int): Number of classes C.
        k (int): Neighbours that vote; the whole bank where it is smaller. Defaults to 200.
        temperature (float): :math:`\tau`. Defaults to 0.1.
        query_chunk (int): Queries compared at once.
        bank_chunk (int): Entries of the bank compared at once.

    Returns:
        Tensor: (Q, C) class indices, the class with the most votes first; classes of equal votes,
        those without any at the end, come in the order of their index.

    Raises:
        ValueError: If the bank is empty, shapes do not match, a label is no class, a number is not
            positive, or an embedding is not finite.

    Examples:
        >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> knn_predict(torch.tensor([[0.1, 2.0]]), bank, torch.tensor([0, 1]), num_classes=2)
        tensor([[1, 0]])
    """
    _check(queries, bank, bank_labels, num_classes)
    for name, value in (
        ('k', k),
        ('temperature', temperature),
        ('query_chunk', query_chunk),
        ('bank_chunk', bank_chunk),
    ):
        if value <= 0:
            raise ValueError(f'knn_predict got {name}={value}, a positive number expected.')
    k = min(k, len(bank))
    queries, bank = F.normalize(queries.float(), dim=1), F.normalize(bank.float(), dim=1)
    ranking = [queries.new_zeros((0, num_classes), dtype=torch.long)]
    for chunk in queries.split(query_chunk):
        similarity, index = _nearest(chunk, bank, k, bank_chunk)
        # a factor common to all votes of a query changes no rank, and keeps exp() finite
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weight.new_zeros((len(chunk), num_classes))
        votes.scatter_add_(1, bank_labels.to(index.device)[index], weight)
        ranking.append(votes.argsort(dim=1, descending=True, stable=True))
    return torch.cat(ranking)


def knn_accuracy(
    queries: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    topk: Sequence[int] = (1, 5),
    **kwargs: float,
) -> Dict[str, float]:
    """Compute how often the class of a query is among those its neighbours vote for most.

    Args:
        queries (Tensor): (Q, D) embeddings, Q at least 1.
        query_labels (Tensor): (Q,) their class indices.
        bank (Tensor): (N, D) embeddings with known classes.
        bank_labels (Tensor): (N,) class indices.
        num_classes (int): Number of classes C.
        topk (Sequence[int]): Numbers of classes a query may be among; clamped to C, so with no
            more than 5 classes top-5 is 1.
        **kwargs: As in :func:`knn_predict`: ``k``, ``temperature``, the chunks.

    Returns:
        dict[str, float]: ``top1``, ``top5`` … in [0, 1], and ``class_mean``: the top-1 accuracy of
        each class that has queries, averaged over those classes.

    Raises:
        ValueError: If there is no query, a query has no label, or :func:`knn_predict` refuses its
            arguments.
    """
    if len(queries) == 0:
        raise ValueError('knn_accuracy got no query, at least one embedding expected.')
    if query_labels.shape != queries.shape[:1]:
        raise ValueError(
            f'knn_accuracy got query labels of shape {tuple(query_labels.shape)} for '
            f'{len(queries)} queries, one label for each expected.'
        )
    ranking = knn_predict(queries, bank, bank_labels, num_classes, **kwargs)
    query_labels = query_labels.to(ranking.device)
    hits = ranking == query_labels[:, None]
    values = {f'top{n}': hits[:, :n].any(dim=1).double().mean().item() for n in topk}
    counts = torch.bincount(query_labels, minlength=num_classes)
    right = torch.bincount(query_labels[hits[:, 0]], minlength=num_classes)
    values['class_mean'] = (right[counts > 0] / counts[counts > 0]).mean().item()
    return values


def _nearest(queries: Tensor, bank: Tensor, k: int, bank_chunk: int) -> Tuple[Tensor, Tensor]:
    """Return similarities and indices (Q, k) of the nearest entries of the bank, nearest first."""
    best: List[Tensor] = []
    for start in range(0, len(bank), bank_chunk):
        similarity = queries @ bank[start : start + bank_chunk].T
        similarity, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
        index += start
        if best:
            similarity = torch.cat((best[0], similarity), dim=1)
            index = torch.cat((best[1], index), dim=1)
            similarity, order = similarity.topk(min(k, similarity.shape[1]), dim=1)
            index = index.gather(1, order)
        best = [similarity, index]
    return best[0], best[1]


def _check(queries: Tensor, bank: Tensor, bank_labels: Tensor, num_classes: int) -> None:
    """Refuse what has no answer."""
    if queries.dim() != 2 or bank.dim() != 2 or queries.shape[1] != bank.shape[1]:
        raise ValueError(
            f'knn_predict got queries of shape {tuple(queries.shape)} and a bank of shape '
            f'{tuple(bank.shape)}, (Q, D) and (N, D) expected.'
        )
    if len(bank) == 0:
        raise ValueError('knn_predict got an empty bank, at least one labelled embedding expected.')
    if bank_labels.shape != bank.shape[:1]:
        raise ValueError(
            f'knn_predict got labels of shape {tuple(bank_labels.shape)} for a bank of '
            f'{len(bank)} embeddings, one label for each expected.'
        )
    if bank_labels.min() < 0 or bank_labels.max() >= num_classes:
        raise ValueError(
            f'knn_predict got labels from {int(bank_labels.min())} to {int(bank_labels.max())}, '
            f'classes from 0 to {num_classes - 1} expected.'
        )
    if not (queries.isfinite().all() and bank.isfinite().all()):
        raise ValueError(
            'knn_predict got embeddings that are not finite: look at the losses of the model that '
            'made them.'
        )
