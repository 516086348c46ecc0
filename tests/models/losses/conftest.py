"""Random pairs of embeddings."""

from typing import Callable, Tuple

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope='session')
def make_pairs() -> Callable[..., Tuple[Tensor, Tensor, Tensor, Tensor]]:
    """A function that returns query, key, labels and groups; one label in four is unknown."""

    def make(count: int, dim: int = 6, classes: int = 3, images: int = 2, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        query, key = torch.randn(2, count, dim, dtype=torch.double, generator=generator)
        labels = torch.randint(-1, classes, (count,), generator=generator)
        groups = torch.randint(images, (count,), generator=generator)
        return query, key, labels, groups

    return make
