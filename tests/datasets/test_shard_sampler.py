"""Each process reads its share of the shards, in an order of its epoch."""

import json
import math

import numpy as np
import pytest
from mmdet.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from two_processes import run_in_two_processes, serve

from mmdet_contrast.converters import coco_to_shards
from mmdet_contrast.datasets import ShardSampler
from mmdet_contrast.utils.config import LaunchError


class Shards:
    """Stands for a data set: sizes are all that a sampler looks at."""

    def __init__(self, sizes):
        self.shard_sizes = np.array(sizes)

    def __len__(self):
        return int(self.shard_sizes.sum())


def orders(sizes, world_size, epoch=0, **kwargs):
    """Return the indices of every process."""
    result = []
    for rank in range(world_size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                'mmdet_contrast.datasets.shard_sampler.get_dist_info',
                lambda own=rank: (own, world_size),
            )
            sampler = ShardSampler(Shards(sizes), **dict(dict(seed=0), **kwargs))
        sampler.set_epoch(epoch)
        result.append(list(sampler))
        assert len(result[-1]) == len(sampler)
    return result


@pytest.mark.parametrize('world_size', [1, 2, 3, 8])
@pytest.mark.parametrize('sizes', [[4, 4, 4, 4], [5, 5, 2], [1, 7, 0, 3, 3, 1], [16], [1, 1]])
@pytest.mark.parametrize('shuffle', [True, False])
def test_every_sample_once_and_equal_steps(sizes, world_size, shuffle):
    total = sum(sizes)
    found = orders(sizes, world_size, shuffle=shuffle, shards_at_once=2)
    steps = math.ceil(total / world_size)
    assert [len(indices) for indices in found] == [steps] * world_size
    repeated = steps * world_size - total
    # those that repeat a sample do so at the end
    kept = found[: world_size - repeated] + [x[:-1] for x in found[world_size - repeated :]]
    flat = sum(kept, [])
    assert sorted(flat) == list(range(total))
    if not shuffle:
        assert flat == list(range(total))


def test_shards_that_divide_are_read_by_one_process_each():
    found = orders([4] * 6, 3)
    shards = [{index // 4 for index in indices} for indices in found]
    assert [len(own) for own in shards] == [2, 2, 2] and set.union(*shards) == set(range(6))


def test_mixes_the_shards_at_once():
    (indices,) = orders([10] * 6, 1, shards_at_once=2)
    groups = [{index // 10 for index in indices[k : k + 20]} for k in (0, 20, 40)]
    assert [len(group) for group in groups] == [2, 2, 2]
    for k in (0, 20, 40):
        shards = [index // 10 for index in indices[k : k + 20]]
        assert shards != sorted(shards) and shards != sorted(shards, reverse=True)


def test_order_depends_on_seed_and_epoch():
    usual = orders([5, 5, 5], 2)
    assert orders([5, 5, 5], 2) == usual
    assert orders([5, 5, 5], 2, epoch=1) != usual != orders([5, 5, 5], 2, seed=7)
    assert orders([5, 5, 5], 2, epoch=1) == orders([5, 5, 5], 2, epoch=1)


def test_refuses_other_data_sets():
    with pytest.raises(LaunchError, match='got a list, but needs a ShardDataset'):
        DATA_SAMPLERS.build(dict(type='ShardSampler', dataset=[1, 2], seed=0))
    part = Shards([3, 3])
    part.__class__ = type('Sliced', (Shards,), dict(__len__=lambda self: 4))
    with pytest.raises(LaunchError, match='without wrapper or num_batch_per_epoch'):
        ShardSampler(part, seed=0)


def work(rank, folder, *roots):
    """What each of the two processes does: read two epochs of each folder with two workers."""
    register()
    return [read(root) for root in roots]


def read(root):
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=2,
            persistent_workers=True,
            sampler=dict(type='ShardSampler'),
            dataset=dict(
                type='ShardDataset',
                data_root=root,
                pipeline=[dict(type='WorkerOf'), dict(type='PackDetInputs', meta_keys=KEYS)],
            ),
        ),
        seed=0,
    )
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.append([[dict(s.metainfo) for s in batch['data_samples']] for batch in loader])
    return dict(epochs=epochs, steps=len(loader))


KEYS = ('img_id', 'worker')


def register():
    """Register the transform in the process that needs it."""
    from mmcv.transforms import BaseTransform, LoadImageFromFile
    from mmdet.registry import TRANSFORMS
    from torch.utils.data import get_worker_info

    @TRANSFORMS.register_module()
    class WorkerOf(BaseTransform):
        """Load the picture, and tell which worker does."""

        def transform(self, results):
            return dict(LoadImageFromFile()(results), worker=get_worker_info().id)


def test_two_processes_see_every_sample_once(tiny_shapes, tmp_path):
    pytest.importorskip('webdataset')
    numbers = (12, 11)
    coco = json.loads((tiny_shapes / 'annotations/instances_train.json').read_text())
    images = coco['images']
    for number in numbers:
        coco['images'] = images[:number]
        known = {image['id'] for image in coco['images']}
        coco['annotations'] = [x for x in coco['annotations'] if x['image_id'] in known]
        (tmp_path / 'ann.json').write_text(json.dumps(coco))
        coco_to_shards(tmp_path / 'ann.json', tiny_shapes / 'train', tmp_path / str(number), 5)
    (tmp_path / 'ranks').mkdir()
    results, _ = run_in_two_processes(
        __file__, tmp_path / 'ranks', *(tmp_path / str(number) for number in numbers)
    )
    for number, ranks in zip(numbers, zip(*results)):
        known = {image['id'] for image in images[:number]}
        seen = []
        for epoch in range(2):
            batches = [result['epochs'][epoch] for result in ranks]
            assert [len(own) for own in batches] == [3, 3] == [result['steps'] for result in ranks]
            ids = [[sample['img_id'] for batch in own for sample in batch] for own in batches]
            assert [len(own) for own in ids] == [6, 6]
            assert set(ids[0]) | set(ids[1]) == known
            assert len(set(ids[0]) & set(ids[1])) == 0
            # batches alternate between the workers
            for own in batches:
                workers = [[sample['worker'] for sample in batch] for batch in own]
                assert workers == [[0, 0], [1, 1], [0, 0]]
            seen.append(ids)
        assert seen[0] != seen[1]


if __name__ == '__main__':
    from mmengine.registry import init_default_scope

    import mmdet_contrast  # noqa: F401

    init_default_scope('mmdet')
    serve(work)
