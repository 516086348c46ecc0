"""The order in which the samples of shards are read."""

import math
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmdet_contrast.utils.config import LaunchError


@DATA_SAMPLERS.register_module()
class ShardSampler(Sampler):
    """Gives each process a share of the shards, and shuffles within a few of them at a time.

    In each epoch the shards are put in a random order, which depends on seed and epoch only, and
    the samples in this order are cut into one piece for each process, the same number for all. A
    shard on the border of two pieces is read by both processes, each its part. So every sample
    comes once in an epoch, however many shards there are. Where the number of processes does not
    divide that of samples, some processes repeat one sample, so that all do the same number of
    steps: at most one less than there are processes, and the log tells how many.

    Within its piece a process mixes the samples of ``shards_at_once`` shards. Its workers take
    turns, one batch each, as with other samplers, so that each sample is read by one of them.

    ``SamplerSeedHook``, which every runner has, sets the epoch: a resumed run reads the epoch that
    it resumes in the order in which it would have been read. For the same order in two runs
    set ``randomness=dict(seed=...)``. ``IterBasedTrainLoop`` starts the next epoch by itself.

    Args:
        dataset (ShardDataset): The data set.
        shuffle (bool): Whether to shuffle; otherwise samples come in the order of the shards.
        seed (int, optional): The same in all processes. Defaults to that of the runner.
        shards_at_once (int): Number of shards whose samples are mixed.

    Raises:
        LaunchError: If it is another data set, or one in a wrapper.
    """

    def __init__(
        self,
        dataset: Any,
        shuffle: bool = True,
        seed: Optional[int] = None,
        shards_at_once: int = 8,
    ) -> None:
        sizes = getattr(dataset, 'shard_sizes', None)
        if sizes is None or sizes.sum() != len(dataset):
            raise LaunchError(
                f'ShardSampler got a {type(dataset).__name__}, but needs a ShardDataset without '
                "wrapper or num_batch_per_epoch: set sampler=dict(type='DefaultSampler')."
            )
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.sizes = sizes
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.shards_at_once = shards_at_once
        self.epoch = 0
        total = len(dataset)
        self.num_samples = math.ceil(total / self.world_size)
        repeated = self.num_samples * self.world_size - total
        print_log(
            f'{total} samples in {len(sizes)} shards: {self.num_samples} for each of '
            f'{self.world_size} processes, {repeated} of them repeated.',
            logger='current',
        )

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        pieces = self._pieces(generator)
        given = 0
        for start in range(0, len(pieces), self.shards_at_once):
            group = [np.arange(*piece) for piece in pieces[start : start + self.shards_at_once]]
            indices = np.concatenate(group)
            if self.shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator).numpy()]
            given += len(indices)
            yield from indices.tolist()
        if given < self.num_samples:
            yield pieces[0][0] if pieces else 0

    def _pieces(self, generator: torch.Generator) -> List[Tuple[int, int]]:
        """Give the ranges of indices that are this process's share of an epoch."""
        number = len(self.sizes)
        order = torch.randperm(number, generator=generator) if self.shuffle else range(number)
        starts = self.sizes.cumsum() - self.sizes
        share, left = divmod(int(self.sizes.sum()), self.world_size)
        begin = self.rank * share + min(self.rank, left)
        end = begin + share + (self.rank < left)
        pieces = []
        passed = 0
        for shard in order:
            size, start = int(self.sizes[shard]), int(starts[shard])
            low, high = max(begin - passed, 0), min(end - passed, size)
            if low < high:
                pieces.append((start + low, start + high))
            passed += size
        return pieces

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which the order depends.

        Args:
            epoch (int): The epoch.
        """
        self.epoch = epoch
