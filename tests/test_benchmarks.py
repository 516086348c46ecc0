"""The benchmarks run, and what they compare agrees; their figures are not looked at."""

import importlib
import os
import subprocess
import sys

import pytest
import torch

# Each script exits with an error where the values that it compares disagree.
SCRIPTS = {
    'channel_wise_divergence.py': ['YOLOv8-n', 'RetinaNet', 'published formula'],
    'contrastive_losses.py': ['NT-Xent', 'SupCon', 'PatchNCE', 'Triplet', 'lightly'],
    'contrastive_view.py': ['ContrastiveView', 'Mean difference'],
    'distillation_step.py': ['CWD on 8 maps + KL', 'student step + teacher forward'],
    'frozen_step.py': ['backbone frozen', 'RetinaNet-R50', 'YOLOv8-n'],
    'region_contrast.py': ['loop: crops, flattened', 'JitteredBoxes', 'whole step'],
    'shard_memory.py': ['ShardDataset', 'held', 'peak'],
    'yolov8.py': [
        'assignment and loss',
        'inference',
        'memory of the assignment',
        'memory of a forward pass',
        'memory of a training step',
    ],
    'training_step.py': [
        'plain',
        'view, weight 0',
        '| contrast ',
        'no view',
    ],
}
COUNTS_CALLS = {
    'contrastive_losses.py',
    'distillation_step.py',
    'frozen_step.py',
    'training_step.py',
    'yolov8.py',
}
ON_CPU_ONLY = {'contrastive_view.py', 'shard_memory.py'}


def quick(script, repo_root, *options):
    """Run a benchmark on tiny sizes."""
    return subprocess.run(
        [sys.executable, str(repo_root / 'benchmarks' / script), '--quick', *options],
        env=dict(os.environ, PYTHONPATH=str(repo_root)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_benchmark_is_tested(repo_root):
    scripts = {path.name for path in (repo_root / 'benchmarks').glob('[a-z]*.py')}
    assert scripts == set(SCRIPTS)


@pytest.fixture()
def common(monkeypatch):
    # importing it sets this
    monkeypatch.setenv('LIGHTLY_DID_VERSION_CHECK', 'True')
    return importlib.import_module('_common')


def test_calls_are_what_computes_and_what_is_read(common):
    x = torch.ones(2, 3)
    calls = {
        'two kernels': lambda: x * 2 + 1,
        'a view': lambda: x.t()[0].view(-1),
        'a value': lambda: x.sum().item(),
        'a size that the values decide': lambda: x[x > 2],
        'another': lambda: torch.unique(x),
        'in place, of several': lambda: torch._foreach_add_([x], 1),
    }
    found = {name: common.count_calls(step, 'cpu') for name, step in calls.items()}
    assert found == {
        'two kernels': (2, 0, 0),
        'a view': (0, 0, 0),
        'a value': (1, 0, 1),
        'a size that the values decide': (1, 0, 1),
        'another': (1, 0, 1),
        'in place, of several': (1, 0, 0),
    }


@pytest.fixture()
def tf32_backends():
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield backends
    for backend, value in zip(backends, before):
        backend.allow_tf32 = value


def test_gpu_computes_in_float32(common, tf32_backends):
    parser = common.parser('', device=True)
    parser.parse_args(['--device', 'cpu'])
    assert all(backend.allow_tf32 for backend in tf32_backends)
    assert parser.parse_args(['--device', 'cuda']).device == 'cuda'
    assert not any(backend.allow_tf32 for backend in tf32_backends)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('script', sorted(set(SCRIPTS) - ON_CPU_ONLY))
def test_runs_on_a_gpu(script, repo_root):
    if script == 'contrastive_losses.py':
        pytest.importorskip('pytorch_metric_learning')
        pytest.importorskip('lightly')
    done = quick(script, repo_root, '--device', 'cuda')
    assert done.returncode == 0, done.stderr
    assert ('launches' in done.stdout) == (script in COUNTS_CALLS)


@pytest.mark.slow
@pytest.mark.parametrize('script', sorted(SCRIPTS))
def test_runs(script, repo_root):
    if script == 'contrastive_losses.py':
        pytest.importorskip('pytorch_metric_learning')
        pytest.importorskip('lightly')
    done = quick(script, repo_root)
    assert done.returncode == 0, done.stderr
    assert 'cores' in done.stdout and 'torch' in done.stdout
    assert 'launches' not in done.stdout
    for word in SCRIPTS[script]:
        assert word in done.stdout
