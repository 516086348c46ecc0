"""The benchmarks run, and what they compare agrees; their figures are not looked at."""

import os
import subprocess
import sys

import pytest

# Each script exits with an error where the values that it compares disagree.
SCRIPTS = {
    'channel_wise_divergence.py': ['YOLOv8-n', 'RetinaNet', 'published formula'],
    'contrastive_losses.py': ['SupCon', 'PatchNCE', 'Triplet'],
    'contrastive_view.py': ['ContrastiveView', 'Mean difference'],
    'distillation_step.py': ['CWD on 8 maps + KL', 'student step + teacher forward'],
    'frozen_step.py': ['backbone frozen', 'RetinaNet-R50', 'YOLOv8-n'],
    'nt_xent_loss.py': ['| ours', 'pytorch-metric-learning', 'lightly'],
    'region_contrast.py': ['loop: crops, flattened', 'JitteredBoxes', 'whole step'],
    'shard_memory.py': ['ShardDataset', 'held', 'peak'],
    'yolov8.py': ['assignment and loss', 'inference', 'memory of the assignment'],
    'training_step.py': [
        'plain',
        'view, weight 0',
        '| contrast ',
        'no view',
    ],
}


def quick(script, repo_root):
    """Run a benchmark on tiny sizes."""
    return subprocess.run(
        [sys.executable, str(repo_root / 'benchmarks' / script), '--quick'],
        env=dict(os.environ, PYTHONPATH=str(repo_root)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def cells(output, *words):
    """Return the cells of the first row of a table that holds the words."""
    rows = [line for line in output.splitlines() if line.startswith('|')]
    row = next(row for row in rows if all(word in row for word in words))
    return [cell.strip() for cell in row.strip('|').split('|')]


def test_every_benchmark_is_tested(repo_root):
    scripts = {path.name for path in (repo_root / 'benchmarks').glob('[a-z]*.py')}
    assert scripts == set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize('script', sorted(SCRIPTS))
def test_runs(script, repo_root):
    if script in ('contrastive_losses.py', 'nt_xent_loss.py'):
        pytest.importorskip('pytorch_metric_learning')
        pytest.importorskip('lightly')
    done = quick(script, repo_root)
    assert done.returncode == 0, done.stderr
    assert 'cores' in done.stdout and 'torch' in done.stdout
    for word in SCRIPTS[script]:
        assert word in done.stdout
    if script == 'nt_xent_loss.py':
        values = [float(cells(done.stdout, word)[-1]) for word in SCRIPTS[script]]
        assert values == pytest.approx([values[0]] * 3, abs=2e-6)
    elif script == 'region_contrast.py':
        ours = float(cells(done.stdout, 'RegionContrast')[-1])
        theirs = float(cells(done.stdout, 'loop: RoIAlign, MLP')[-1])
        assert ours == pytest.approx(theirs, abs=2e-6)
