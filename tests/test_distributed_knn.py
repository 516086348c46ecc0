"""The monitor in two gloo processes: what one process measures, and no hanging."""

from pathlib import Path

import pytest
import torch
from knn_runs import tiny_config
from mmengine.runner import Runner
from two_processes import run_in_two_processes, serve

from mmdet_contrast.engine.hooks import KNNMonitorHook
from mmdet_contrast.engine.hooks.knn_monitor_hook import _undisturbed
from mmdet_contrast.evaluation.functional import knn_accuracy

# Training steps of whole processes; the figures of one process are in test_knn_monitor_hook.py.
pytestmark = pytest.mark.slow

HOOK = dict(type='KNNMonitorHook', max_samples=11)


def sets_of(runner):
    """Embeddings of bank and queries with the runner's model."""
    monitor = next(hook for hook in runner.hooks if isinstance(hook, KNNMonitorHook))
    model = getattr(runner.model, 'module', runner.model)
    model.eval()
    if not monitor._sets:
        monitor._build(runner)
    return [monitor.embedder.embed_dataset(model, part.dataset) for part in monitor._sets]


def work(rank, folder, root):
    """What each of the two processes does."""
    cfg = tiny_config(root, Path(folder) / 'run', [HOOK], max_epochs=1, contrastive=True)
    cfg.launcher = 'pytorch'
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    model = runner.model.module
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with _undisturbed(model):
        bank, queries = sets_of(runner)
    values = knn_accuracy(*queries, *bank, num_classes=3)
    after = model.state_dict()
    kept = all(torch.equal(before[key], after[key]) for key in before)
    return dict(values=values, bank=tuple(bank), weights=before, kept=kept)


@pytest.fixture(scope='module')
def results(tiny_shapes, tmp_path_factory):
    return run_in_two_processes(__file__, tmp_path_factory.mktemp('ranks'), tiny_shapes)


def test_both_processes_hold_what_one_process_measures(results, tiny_shapes, tmp_path):
    ranks, _ = results
    assert ranks[0]['values'] == ranks[1]['values']
    # each process has statistics of its own, and keeps them
    first, second = (rank['weights']['backbone.bn1.running_mean'] for rank in ranks)
    assert not torch.equal(first, second) and ranks[0]['kept'] and ranks[1]['kept']
    cfg = tiny_config(tiny_shapes, tmp_path, [HOOK], contrastive=True)
    runner = Runner.from_cfg(cfg)
    runner.model.load_state_dict(ranks[0]['weights'])
    bank, queries = sets_of(runner)
    assert knn_accuracy(*queries, *bank, num_classes=3) == pytest.approx(ranks[0]['values'])
    # the same boxes, in another order
    for ours, theirs in zip(bank, ranks[1]['bank']):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(
            ours.double().sum(dim=0), theirs.double().sum(dim=0), rtol=1e-4, atol=1e-4
        )


def test_one_process_shows_progress_and_writes(results):
    _, outputs = results
    assert '11/11' in outputs[0][1] and '11/11' not in outputs[1][1]
    assert outputs[0][0].count('knn/std: ') + outputs[0][1].count('knn/std: ') == 1


if __name__ == '__main__':
    serve(work)
