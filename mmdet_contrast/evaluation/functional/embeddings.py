"""Figures of embeddings: what their nearest neighbours say, and how they lie on the unit sphere."""

from typing import Dict, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# similarities in memory at once: 256 MiB
_CHUNK = 2**26


def knn_predict(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> Tensor:
    r"""Rank the classes of embeddings by the votes of their nearest neighbours.

    The weighted vote of Wu et al. (arXiv 1805.01978, section 3.4), which became the usual monitor
    of representations: the k entries of the bank with the largest cosine similarity :math:`s` vote
    for their class with the weight :math:`\exp(s / \tau)`. The search is exact; the queries are
    cut in chunks, so that memory does not grow with the product of both.

    Args:
        queries (Tensor): (Q, D) embeddings of any length.
        bank (Tensor): (N, D) embeddings with known classes, N at least 1.
        bank_labels (Tensor): (N,) class indices, from 0 to ``num_classes - 1``.
        num_classes (int): Number of classes C.
        k (int): Neighbours that vote; the whole bank where it is smaller. Defaults to 200.
        temperature (float): :math:`\tau`. Defaults to 0.1.

    Returns:
        Tensor: (Q, C) class indices, the class with the most votes first; classes of equal votes,
        those without any at the end, come in the order of their index.

    Raises:
        ValueError: If an embedding is not finite.

    Examples:
        >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> knn_predict(torch.tensor([[0.1, 2.0]]), bank, torch.tensor([0, 1]), num_classes=2)
        tensor([[1, 0]])
    """
    if not (queries.isfinite().all() and bank.isfinite().all()):
        raise ValueError(
            'knn_predict got embeddings that are not finite: look at the losses of the model.'
        )
    k = min(k, len(bank))
    queries, bank = F.normalize(queries.float(), dim=1), F.normalize(bank.float(), dim=1)
    ranking = [queries.new_zeros((0, num_classes), dtype=torch.long)]
    for chunk in queries.split(max(_CHUNK // len(bank), 1)):
        similarity, index = (chunk @ bank.T).topk(k, dim=1)
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
        **kwargs: ``k`` and ``temperature`` of :func:`knn_predict`.

    Returns:
        dict[str, float]: ``top1``, ``top5`` … in [0, 1], and ``class_mean``: the top-1 accuracy of
        each class that has queries, averaged over those classes.

    Raises:
        ValueError: If an embedding is not finite.
    """
    ranking = knn_predict(queries, bank, bank_labels, num_classes, **kwargs)
    query_labels = query_labels.to(ranking.device)
    hits = ranking == query_labels.view(len(queries), 1)
    values = {f'top{n}': hits[:, :n].any(dim=1).double().mean().item() for n in topk}
    counts = torch.bincount(query_labels, minlength=num_classes)
    right = torch.bincount(query_labels[hits[:, 0]], minlength=num_classes)
    values['class_mean'] = (right[counts > 0] / counts[counts > 0]).mean().item()
    return values


def embedding_std(embeddings: Tensor) -> float:
    r"""Compute the spread of embeddings, which tells a collapse (SimSiam, arXiv 2011.10566, 4.1).

    The standard deviation (with N - 1) of each dimension of the embeddings, scaled to length 1,
    averaged over the dimensions. An isotropic distribution around 0 has about
    :math:`1 / \sqrt{D}`, a collapsed one, the same vector for all, has 0. Features after a ReLU
    lie in one corner of the sphere and are lower than :math:`1 / \sqrt{D}` without a collapse.

    Args:
        embeddings (Tensor): (N, D) embeddings of any length, N at least 2.

    Returns:
        float: The mean standard deviation, in [0, 1].
    """
    return F.normalize(embeddings.float(), dim=1).std(dim=0).mean().item()
