import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner, set_random_seed

from mmdet_contrast.datasets.transforms import ContrastiveView
from mmdet_contrast.engine.hooks import ViewEpochHook


class Pictures(BaseDataset):
    """Twelve noise pictures with two boxes each."""

    def __init__(self):
        super().__init__(pipeline=[self.load, ContrastiveView(), self.pack], serialize_data=False)

    def load_data_list(self):
        return [dict(img_id=i) for i in range(12)]

    @staticmethod
    def load(results):
        rng = np.random.RandomState(results['img_id'])
        results['img'] = rng.randint(0, 255, (40, 50, 3)).astype(np.uint8)
        results['gt_bboxes'] = np.array([[2, 3, 20, 30], [15, 8, 45, 38]], dtype=np.float32)
        return results

    @staticmethod
    def pack(results):
        return dict(inputs=torch.from_numpy(results['img_view']), data_samples=results['img_id'])


def views(num_workers, seed, epochs=(0,), persistent=False, notify=True):
    """Views by epoch and image."""
    set_random_seed(seed)
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=num_workers,
            persistent_workers=persistent,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=Pictures(),
        ),
        seed=seed,
    )

    class FakeRunner:
        epoch = 0

    out = {}
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        if notify:
            FakeRunner.epoch = epoch
            ViewEpochHook().before_train_epoch(FakeRunner)
        for batch in loader:
            for view, img_id in zip(batch['inputs'], batch['data_samples']):
                out[epoch, img_id] = view.numpy()
    return out


@pytest.fixture(autouse=True)
def first_epoch():
    ContrastiveView.set_epoch(0)
    yield
    ContrastiveView.set_epoch(0)


def same(first, second):
    assert first.keys() == second.keys()
    return all(np.array_equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize('num_workers, persistent', [(1, False), (2, True), (3, False)])
def test_any_number_of_workers_gives_the_same_views(num_workers, persistent):
    alone = views(0, seed=5, epochs=(0, 1))
    assert same(alone, views(num_workers, seed=5, epochs=(0, 1), persistent=persistent))


def test_seeds_and_epochs_differ():
    first = views(0, seed=5, epochs=(0, 1))
    assert not same(first, views(0, seed=6, epochs=(0, 1)))
    # crops are whole pixels, so two draws may fall on the same one
    assert sum(np.array_equal(first[0, i], first[1, i]) for i in range(12)) < 6


def test_resumed_run_draws_what_the_interrupted_would_have():
    assert same(views(2, 5, epochs=(1,)), {k: v for k, v in views(2, 5, (0, 1)).items() if k[0]})


def test_without_the_hook_later_passes_are_drawn_anew():
    out = views(1, seed=5, epochs=(0, 1), persistent=True, notify=False)
    assert sum(np.array_equal(out[0, i], out[1, i]) for i in range(12)) < 6
