"""Staged training in two gloo processes: the ranks stay the same, and nothing hangs."""

import pytest
import torch
from freeze_toys import EPOCH, Toy, train
from mmengine.model import MMDistributedDataParallel
from two_processes import run_in_two_processes, serve

from mmdet_contrast.engine.hooks import FreezeBackboneHook

STAGES = [dict(modules='neck', freeze_epochs=1), dict(modules='backbone', freeze_epochs=2)]
CASES = {
    'stages': (STAGES, dict()),
    'iterations': ([dict(freeze_iters=3)], dict(by_epoch=False)),
    'accumulation': ([dict(freeze_epochs=2)], dict(optim=dict(accumulative_counts=2))),
    'bucket views': (STAGES, dict(wrapper=dict(gradient_as_bucket_view=True))),
    'always': ([dict(freeze_epochs=-1)], dict(length=2)),
}
# options of the wrapper, and what the error says
REFUSED = {
    # by PyTorch
    'no flag': (dict(find_unused_parameters=False), '`find_unused_parameters=True`'),
    'static graph': (dict(static_graph=True), 'not compatible with static_graph'),
    # the wrapper would never synchronise these parameters
    'frozen before': (dict(frozen=True), 'backbone later, but no parameter in it needs a gradient'),
}


def wrap(frozen=False, **kwargs):
    kwargs = dict(dict(broadcast_buffers=False, find_unused_parameters=True), **kwargs)
    model = Toy()
    model.backbone.requires_grad_(not frozen)
    return MMDistributedDataParallel(model, **kwargs)


def work(rank, folder):
    """What each of the two processes does: train on other pictures than the other one."""
    results = {}
    for name, (stages, options) in CASES.items():
        options = dict(options)
        model = wrap(**options.pop('wrapper', {}))
        hooks = [FreezeBackboneHook(**stage) for stage in stages]
        _, recorder = train(f'{folder}/{name}', *hooks, model=model, rank=rank, **options)
        results[name] = recorder.states
    for name, (options, _) in REFUSED.items():
        try:
            train(f'{folder}/{name}', FreezeBackboneHook(1), model=wrap(**options), rank=rank)
        except (ValueError, RuntimeError) as error:
            results[name] = str(error)
    return results


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    return run_in_two_processes(__file__, tmp_path_factory.mktemp('ranks'))[0]


def parameters(state):
    return {k: v for k, v in state.items() if k.endswith(('weight', 'bias'))}


@pytest.mark.parametrize('name', list(CASES))
def test_ranks_are_identical_before_and_after_the_boundary(results, name):
    first, other = (result[name] for result in results)
    assert first.keys() == other.keys() and len(first) > 4
    for i in first:
        for key, value in parameters(first[i]).items():
            assert torch.equal(value, other[i][key]), (i, key)
    # they saw other pictures: it is the synchronisation that makes them equal
    statistics = 'module.head.weight' if name == 'always' else 'module.neck.1.running_mean'
    last = max(first)
    if name != 'always':
        assert not torch.equal(first[last][statistics], other[last][statistics])


@pytest.mark.parametrize(
    ('name', 'prefix', 'boundary', 'end'),
    [
        ('stages', 'neck', EPOCH, 4 * EPOCH),
        ('stages', 'backbone', 2 * EPOCH, 4 * EPOCH),
        ('bucket views', 'neck', EPOCH, 4 * EPOCH),
        ('bucket views', 'backbone', 2 * EPOCH, 4 * EPOCH),
        ('iterations', 'backbone', 3, 4),
        ('accumulation', 'backbone', 2 * EPOCH, 4 * EPOCH),
        ('always', 'backbone', 2 * EPOCH, 2 * EPOCH),
    ],
)
def test_frozen_stands_still_and_moves_afterwards(results, name, prefix, boundary, end):
    for rank in (0, 1):
        states = results[rank][name]
        for key in [k for k in states[-1] if k.startswith(f'module.{prefix}.')]:
            for i in range(boundary):
                assert torch.equal(states[i][key], states[-1][key]), (i, key)
            if end > boundary:
                assert not torch.equal(states[end - 1][key], states[-1][key]), key


@pytest.mark.parametrize('name', list(REFUSED))
def test_what_would_fail_or_let_the_ranks_diverge_is_refused(results, name):
    assert all(REFUSED[name][1] in result[name] for result in results)


if __name__ == '__main__':
    serve(work)
