"""How embeddings lie on the unit sphere."""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor


def embedding_std(embeddings: Tensor) -> float:
    r"""Compute the spread of embeddings, which tells a collapse (SimSiam, arXiv 2011.10566, 4.1).

    Of every dimension of the embeddings, scaled to length 1, the standard deviation over the
    embeddings (with N - 1); of these the mean. An isotropic distribution around 0 has about
    :math:`1 / \sqrt{D}`, a collapsed one, the same vector for all, has 0. Features after a ReLU
    lie in one corner of the sphere and are lower than :math:`1 / \sqrt{D}` without a collapse.

    Args:
        embeddings (Tensor): (N, D) embeddings of any length, N at least 2.

    Returns:
        float: The mean standard deviation, in [0, 1].

    Raises:
        ValueError: If there are fewer than two embeddings, or one is not finite.
    """
    return _unit(embeddings, 2, 'embedding_std').std(dim=0).mean().item()


def alignment(first: Tensor, second: Tensor, alpha: float = 2.0) -> float:
    r"""Compute how far the two embeddings of a positive pair are apart.

    Wang and Isola (arXiv 2005.10242, section 4.1):
    :math:`\mathbb{E}\,\lVert f(x) - f(y) \rVert_2^\alpha` over pairs of unit vectors. 0 where all
    pairs coincide; with :math:`\alpha = 2` it equals 2 - 2 times their mean cosine, at most 4.

    Args:
        first (Tensor): (N, D) embeddings of any length, N at least 1.
        second (Tensor): (N, D) embeddings of the same objects, row by row.
        alpha (float): Exponent of the distance. Defaults to 2.

    Returns:
        float: The mean, not negative; lower is better.

    Raises:
        ValueError: If shapes differ, there is no pair, or an embedding is not finite.
    """
    if first.shape != second.shape:
        raise ValueError(
            f'alignment got embeddings of shapes {tuple(first.shape)} and {tuple(second.shape)}, '
            'two of the same shape (N, D) expected: row i of both is a pair.'
        )
    difference = _unit(first, 1, 'alignment') - _unit(second, 1, 'alignment')
    return difference.norm(dim=1).pow(alpha).mean().item()


def uniformity(embeddings: Tensor, t: float = 2.0, chunk: int = 1024) -> float:
    r"""Compute how evenly embeddings fill the sphere.

    Wang and Isola (arXiv 2005.10242, section 4.1):
    :math:`\log \mathbb{E}\, e^{-t \lVert f(x) - f(y) \rVert_2^2}` over all pairs of different
    embeddings. 0 where all coincide; an even distribution in many dimensions has about
    :math:`-2t`.

    Args:
        embeddings (Tensor): (N, D) embeddings of any length, N at least 2.
        t (float): Factor of the squared distance. Defaults to 2.
        chunk (int): Rows compared with all others at once.

    Returns:
        float: The logarithm, at most 0; lower is more even.

    Raises:
        ValueError: If there are fewer than two embeddings, or one is not finite.
    """
    unit = _unit(embeddings, 2, 'uniformity')
    count = len(unit)
    sums = []
    for start in range(0, count, chunk):
        rows = unit[start : start + chunk]
        exponent = -t * (2 - 2 * rows @ unit.T).clamp(min=0)
        own = torch.arange(len(rows), device=unit.device)
        exponent[own, start + own] = float('-inf')
        sums.append(exponent.double().logsumexp(dim=1))
    return torch.cat(sums).logsumexp(dim=0).item() - log(count * (count - 1))


def _unit(embeddings: Tensor, least: int, name: str) -> Tensor:
    """Return embeddings of length 1, refusing what has no answer."""
    if embeddings.dim() != 2 or len(embeddings) < least:
        raise ValueError(
            f'{name} got embeddings of shape {tuple(embeddings.shape)}, (N, D) with N of at least '
            f'{least} expected.'
        )
    if not embeddings.isfinite().all():
        raise ValueError(
            f'{name} got embeddings that are not finite: look at the losses of the model that made '
            'them.'
        )
    return F.normalize(embeddings.float(), dim=1)
