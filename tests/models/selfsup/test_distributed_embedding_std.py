"""The spread of the embeddings over the images of all processes, in two of gloo."""

import pytest
import torch
from mmengine.registry import init_default_scope
from two_processes import run_in_two_processes, serve

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
    )
    # pictures of noise look alike to a random network
    model._COLLAPSED, model._INTERVAL = 0.05, 2
    return model.train()


def images(n=4):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def std_of(model, batch):
    return model(dict(view1=batch, view2=batch + 0.1), mode='loss').get('embedding_std')


def work(rank, folder):
    """What each of the two processes does."""
    values = {}
    for count in (1, 2):
        model, own = build(), images(2 * count)[rank::2]
        values[count] = [std_of(model, own) for _ in range(4)]
    return values


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    ranks, outputs = run_in_two_processes(__file__, tmp_path_factory.mktemp('ranks'))
    return ranks, '\n'.join(text for output in outputs for text in output)


@pytest.mark.slow
@pytest.mark.parametrize('count', [1, 2])
def test_std_is_that_of_the_images_of_all_processes(results, count):
    (first, second), _ = results
    model = build()
    with torch.no_grad():
        z = model.projector(model.extract_feat(images(2 * count)))
    for value in (*first[count], *second[count]):
        assert float(value) == pytest.approx(embedding_std(z), rel=1e-4)


@pytest.mark.slow
def test_one_image_in_each_process_is_no_collapse(results):
    assert 'collapsing' not in results[1]


def test_a_single_image_has_no_std():
    assert std_of(build(), images(1)) is None


def test_evaluation_of_one_process_waits_for_no_other(monkeypatch):
    monkeypatch.setattr('mmengine.dist.all_reduce', pytest.fail)
    assert float(std_of(build().eval(), images())) > 0


if __name__ == '__main__':
    serve(work)
