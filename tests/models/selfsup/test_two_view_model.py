"""The spread of the embeddings over the images of all processes, in two of gloo."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope

from mmdet_contrast.evaluation.functional import embedding_std
from mmdet_contrast.models.selfsup import SimSiam

GROUPS = dict(type='GN', num_groups=2)


def build():
    """A model without batch normalisation, as one image in a process needs it on the CPU."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = SimSiam(
        backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(3,), norm_cfg=GROUPS),
        projector=dict(type='BatchNormMLP', channels=(64, 16)),
        predictor=dict(type='BatchNormMLP', channels=(16, 16)),
        # pictures of noise look alike to a random network
        collapse_ratio=0.05,
        collapse_interval=2,
    )
    return model.train()


def images(n=4):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def std_of(model, batch):
    return model(dict(view1=batch, view2=batch + 0.1), mode='loss').get('embedding_std')


def work(rank, folder):
    """What each of the two processes does."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    values = {}
    for count in (1, 2):
        model, own = build(), images(2 * count)[rank::2]
        values[count] = [std_of(model, own) for _ in range(4)]
    torch.save(values, f'{folder}/rank{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('ranks'))
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, folder, str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(os.environ, LOCAL_RANK=str(rank)),
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], '\n'.join(outputs)
    return [torch.load(f'{folder}/rank{rank}.pt') for rank in (0, 1)], '\n'.join(outputs)


@pytest.mark.parametrize('count', [1, 2])
def test_std_is_that_of_the_images_of_all_processes(results, count):
    (first, second), _ = results
    model = build()
    with torch.no_grad():
        z = model.projector(model.extract_feat(images(2 * count)))
    for value in (*first[count], *second[count]):
        assert float(value) == pytest.approx(embedding_std(z), rel=1e-4)


def test_one_image_in_each_process_is_no_collapse(results):
    assert 'collapsing' not in results[1]


def test_a_single_image_has_no_std():
    assert std_of(build(), images(1)) is None


def test_evaluation_of_one_process_waits_for_no_other(monkeypatch):
    monkeypatch.setattr('mmengine.dist.all_reduce', pytest.fail)
    assert float(std_of(build().eval(), images())) > 0


if __name__ == '__main__':
    work(int(sys.argv[2]), sys.argv[1])
