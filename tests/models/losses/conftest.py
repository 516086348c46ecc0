"""Random pairs of embeddings."""

from typing import Callable, Tuple

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope='session')
def make_pairs() -> Callable[..., Tuple[Tensor, Tensor, Tensor, Tensor]]:
    """A function that returns query, key, labels and groups; one label in four is unknown."""

    def make(count: int, *levels: int, dim: int = 6, classes: int = 3, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        shape = (2, *levels, count, dim)
        query, key = torch.randn(shape, dtype=torch.double, generator=generator)
        labels = torch.randint(-1, classes, (count,), generator=generator)
        groups = torch.randint(2, (count,), generator=generator)
        return query.requires_grad_(), key.requires_grad_(), labels, groups

    return make
