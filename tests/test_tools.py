"""The command-line tools: quoting of the shell scripts, and real runs of the rest."""

import json
import os
import pickle
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'
AWKWARD = ['a b', '*', '$HOME', "it's", '', 'key=[1, 2]']

CONFIG = """
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['mmdet_contrast', 'weight_hash_hook'], allow_failed_imports=False)
custom_hooks = [dict(type='WeightHashHook')]
model = dict(
    data_preprocessor=dict(type='ContrastiveDataPreprocessor'),
    backbone=dict(
        _delete_=True, type='ResNet', depth=18, base_channels=8, num_stages=4,
        out_indices=(0, 1, 2, 3), norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(
        type='ContrastiveRetinaHead', num_classes=2, in_channels=16, feat_channels=16,
        stacked_convs=1))
load = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True)]
data = dict(type='CocoDataset', data_root=r'{root}', metainfo=dict(classes=('red', 'blue')),
            ann_file='coco.json', data_prefix=dict(img=''))
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**data, pipeline=[
        *load, dict(type='ContrastiveView', min_size=4), dict(type='PackContrastiveInputs')]))
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, test_mode=True,
                 pipeline=[*load, dict(type='PackDetInputs', meta_keys=keys)]))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=r'{root}/coco.json', metric='bbox')
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9),
                     clip_grad=dict(max_norm=10))
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""

HOOK = """
import hashlib
import os

from mmdet.registry import HOOKS
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook


@HOOKS.register_module()
class WeightHashHook(Hook):
    priority = 'LOWEST'

    def after_train(self, runner):
        digest = hashlib.sha256()
        for name, value in runner.model.module.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        path = os.path.join(runner.work_dir, f'rank{get_rank()}of{get_world_size()}.txt')
        with open(path, 'w') as stream:
            stream.write(digest.hexdigest())
"""


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Make a folder (with a blank in its name) of eight tiny images, a config and a hook."""
    root = tmp_path_factory.mktemp('a project')
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(8):
        image = rng.integers(60, 120, (64, 64, 3), dtype=np.uint8)
        # Unequal numbers of boxes, none included, so the ranks differ in what they hold.
        for _ in range(number % 4):
            kind = int(rng.integers(2))
            (w, h), (x, y) = rng.integers(16, 28, 2).tolist(), rng.integers(0, 36, 2).tolist()
            image[y : y + h, x : x + w] = (255, 40, 40) if kind else (40, 40, 255)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=kind + 1,
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                )
            )
        cv2.imwrite(str(root / f'{number}.png'), image)
        images.append(dict(id=number, file_name=f'{number}.png', width=64, height=64))
    categories = [dict(id=1, name='red'), dict(id=2, name='blue')]
    coco = dict(images=images, annotations=annotations, categories=categories)
    (root / 'coco.json').write_text(json.dumps(coco))
    torch.save({'state_dict': {'backbone.conv1.weight': torch.zeros(3)}}, str(root / 'other.pth'))
    (root / 'tiny.py').write_text(CONFIG.replace('{root}', str(root)))
    (root / 'weight_hash_hook.py').write_text(HOOK)
    return root


def run(command, cwd, **env):
    """Run a command; its output is shown when an assertion on it fails."""
    env = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **env}
    env['PYTHONPATH'] = os.pathsep.join([str(cwd), str(ROOT), env.get('PYTHONPATH', '')])
    env.setdefault('PYTHONWARNINGS', 'ignore')
    return subprocess.run(
        [str(part) for part in command],
        cwd=str(cwd),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        timeout=300,
    )


def stub(folder, name):
    """Make an executable that prints its arguments as JSON."""
    path = folder / name
    path.write_text(f'#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n')
    path.chmod(0o755)
    return path


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])


# ---------------------------------------------------------------------------------------- quoting


@pytest.mark.parametrize(
    'script, first, tool',
    [
        ('dist_train.sh', ['my config.py', '2'], 'train.py'),
        ('dist_test.sh', ['my config.py', 'a [1].pth', '2'], 'test.py'),
    ],
)
def test_dist_scripts_keep_arguments(tmp_path, script, first, tool):
    (tmp_path / 'file.txt').write_text('')  # a bare * would expand to it
    python = stub(tmp_path, 'my python')
    env = dict(NNODES='3', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='1234', PYTHON=str(python))
    result = run([TOOLS / script, *first, *AWKWARD], tmp_path, **env)
    assert result.returncode == 0, result.stdout
    assert json.loads(result.stdout) == [
        *'-m torch.distributed.run --nnodes=3 --node_rank=1 --master_addr=10.0.0.1'.split(),
        *'--master_port=1234 --nproc_per_node=2'.split(),
        *[str(TOOLS / tool), *first[:-1], '--launcher', 'pytorch', *AWKWARD],
    ]


def test_slurm_script_keeps_arguments(tmp_path):
    (tmp_path / 'file.txt').write_text('')
    stub(tmp_path, 'srun')
    env = dict(
        PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
        PYTHON='my python',
        GPUS='4',
        CPUS_PER_TASK='3',
        SRUN_ARGS='--exclude=n[1-2] --comment=*',
    )
    command = [TOOLS / 'slurm_train.sh', 'gpu', 'my job', 'my config.py', 'a dir', *AWKWARD]
    result = run(command, tmp_path, **env)
    assert result.returncode == 0, result.stdout
    assert json.loads(result.stdout) == [
        *['-p', 'gpu', '--job-name=my job', '--gres=gpu:4', '--ntasks=4', '--ntasks-per-node=4'],
        *['--cpus-per-task=3', '--kill-on-bad-exit=1', '--exclude=n[1-2]', '--comment=*'],
        *['my python', '-u', str(TOOLS / 'train.py'), 'my config.py', '--work-dir', 'a dir'],
        *['--launcher', 'slurm', *AWKWARD],
    ]


def test_slurm_script_sizes_the_job(tmp_path):
    stub(tmp_path, 'srun')
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    command = [TOOLS / 'slurm_train.sh', 'p', 'j', 'c.py', 'w']
    arguments = json.loads(run(command, tmp_path, PATH=path, GPUS='16').stdout)
    assert '--ntasks=16' in arguments and '--gres=gpu:8' in arguments
    arguments = json.loads(run(command, tmp_path, PATH=path, GPUS='4', GPUS_PER_NODE='2').stdout)
    assert '--ntasks=4' in arguments and '--ntasks-per-node=2' in arguments


@pytest.mark.parametrize(
    'command',
    [
        ['dist_train.sh', 'config.py'],
        ['dist_train.sh', 'config.py', '--work-dir'],
        ['dist_train.sh', 'config.py', '0'],
        ['dist_test.sh', 'config.py', '2'],
        ['slurm_train.sh', 'partition', 'job', 'config.py'],
        ['demo.sh', '--frsh'],
    ],
)
def test_scripts_say_their_usage(tmp_path, command):
    result = run([TOOLS / command[0], *command[1:]], tmp_path)
    assert result.returncode == 2
    assert result.stdout.startswith(f'usage: {command[0]}')


# --------------------------------------------------------------------------- two gloo processes

# asks for gloo where there is a GPU, which there may be one of
CPU = dict(CUDA_VISIBLE_DEVICES='')

ONE_GPU = """
import time

import torch
from mmengine.device import utils

utils.DEVICE = 'cuda'
torch.cuda.device_count = lambda: 1
torch.cuda.set_device = lambda device: None
torch.distributed.init_process_group = lambda **kwargs: time.sleep(600)
"""


@pytest.fixture(scope='module')
def trained(project):
    """Train one epoch on two processes."""
    command = [TOOLS / 'dist_train.sh', 'tiny.py', '2', '--work-dir', 'my run']
    done = run(command, project, PORT=free_port(), **CPU)
    assert done.returncode == 0, done.stdout[-3000:]


def test_ranks_end_with_identical_weights(project, trained):
    first, second = ((project / f'my run/rank{rank}of2.txt').read_text() for rank in (0, 1))
    assert first == second


def test_all_processes_end_if_one_has_no_gpu(project, tmp_path):
    """With one GPU the first process has one, and waits for the second, which ends."""
    (tmp_path / 'one_gpu.py').write_text(ONE_GPU)
    config = f"_base_ = {str(project / 'tiny.py')!r}\ncustom_imports = dict(imports=['one_gpu'])\n"
    (tmp_path / 'config.py').write_text(config)
    command = [TOOLS / 'dist_train.sh', 'config.py', '2', '--work-dir', 'run']
    done = run(command, tmp_path, PORT=free_port(), **CPU)
    assert done.returncode == 1
    sentence = 'train.py: error: process 1 of this machine has no GPU, because torch sees 1: start'
    assert done.stdout.count(sentence) == 1
    assert 'closing signal SIGTERM' in done.stdout


@pytest.mark.slow
def test_dist_test_joins_the_processes(project, trained):
    command = [TOOLS / 'dist_test.sh', 'tiny.py', 'my run/epoch_1.pth', '2']
    options = ['--work-dir', 'dist test', '--out', 'dist test/found.pkl']
    result = run([*command, *options], project, PORT=free_port(), **CPU)
    assert result.returncode == 0, result.stdout[-3000:]
    with open(str(project / 'dist test' / 'found.pkl'), 'rb') as stream:
        assert sorted(item['img_id'] for item in pickle.load(stream)) == list(range(8))


# ------------------------------------------------------- tools that need no process of their own


@pytest.fixture
def call(project, monkeypatch):
    """Run a Python tool in this process, which saves seconds of imports."""

    def _call(tool, *arguments):
        monkeypatch.chdir(project)
        monkeypatch.syspath_prepend(str(project))
        monkeypatch.setattr(sys, 'argv', [tool, *arguments])
        monkeypatch.delenv('LOCAL_RANK', raising=False)
        runpy.run_path(str(TOOLS / tool), run_name='__main__')

    yield _call
    # The tools set it, as MMDetection's do.
    os.environ.pop('LOCAL_RANK', None)


def test_plot_losses_tool_draws_the_run(project, trained, call, capsys):
    tool = 'analysis_tools/plot_losses.py'
    call(tool, 'my run', '--out', 'out/losses.png', '--smooth', '2')
    assert cv2.imread(str(project / 'out' / 'losses.png')).std() > 1
    with pytest.raises(SystemExit, match='loss_nowhere.*loss_contrast_p3'):
        call(tool, 'my run', '--out', 'out/losses.png', '--keys', 'loss_nowhere')


def test_test_tool_evaluates_the_checkpoint(project, trained, call):
    options = ['--work-dir', 'my test', '--out', 'my test/found.pkl', '--show-dir', 'drawn']
    call('test.py', 'tiny.py', 'my run/epoch_1.pth', *options)
    with open(str(project / 'my test' / 'found.pkl'), 'rb') as stream:
        found = pickle.load(stream)
    assert [item['img_id'] for item in found] == list(range(8))
    assert len(list((project / 'my test').glob('*/drawn/*.png'))) == 8


def test_browse_views_tool_draws_pairs(project, call):
    tool = 'analysis_tools/browse_views.py'
    call(tool, 'tiny.py', '--out-dir', 'views', '--num', '3')
    names = sorted(path.name for path in (project / 'views').iterdir())
    assert names == ['000_0.png', '001_4.png', '002_7.png']
    options = ['--cfg-options', 'train_dataloader.dataset.indices=2']
    call(tool, 'tiny.py', '--out-dir', 'two', '--num', '3', *options)
    assert len(list((project / 'two').iterdir())) == 2


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['train.py', 'no.py'], "train.py: error: config file 'no.py' does not exist"),
        (
            ['train.py', 'tiny.py', '--cfg-options', 'trian_cfg.max_epochs=1'],
            "train.py: error: .*did you mean 'train_cfg'",
        ),
        (
            ['train.py', 'tiny.py', '--cfg-options', 'model.bbox_head.num_classes=1'],
            'train.py: error: .*has num_classes=1, but train_dataloader has the 2 classes',
        ),
        (
            ['dataset_converters/voc_to_coco.py', 'gone', 'out.json'],
            'voc_to_coco.py: error: gone is not a folder',
        ),
    ],
)
def test_tools_say_what_is_wrong(call, tmp_path, arguments, message):
    if 'tiny.py' in arguments:
        arguments = [*arguments, '--work-dir', str(tmp_path)]
    with pytest.raises(SystemExit, match=message):
        call(*arguments)


def test_testing_refuses_the_checkpoint_of_something_else(call, tmp_path):
    with pytest.raises(SystemExit, match='^test.py: error: .*size mismatch for backbone.conv1'):
        call('test.py', 'tiny.py', 'other.pth', '--work-dir', str(tmp_path))


def test_converter_tools_pass_their_options_on(call, tmp_path, capsys):
    folder, out = str(tmp_path / 'img'), tmp_path / 'out.json'
    (tmp_path / 'img').mkdir()
    cv2.imwrite(str(tmp_path / 'img' / 'a.png'), np.zeros((40, 60, 3), np.uint8))
    (tmp_path / 'img' / 'a.txt').write_text('cat 0.5 0.5 1.5 0.5\n')
    (tmp_path / 'img' / 'a.xml').write_text(
        '<annotation><object><name>cat</name><bndbox><xmin>-14</xmin><ymin>11</ymin>'
        '<xmax>76</xmax><ymax>31</ymax></bndbox></object></annotation>'
    )
    for tool, *arguments in (
        ['voc_to_coco.py', folder, str(out)],
        ['txt_to_coco.py', folder, folder, str(out), '--normalized'],
    ):
        report = tmp_path / f'{tool}.json'
        call(f'dataset_converters/{tool}', *arguments, '--min-size', '30', '--report', str(report))
        assert '1 images, 1 boxes' in capsys.readouterr().out
        (annotation,) = json.loads(out.read_text())['annotations']
        assert annotation['bbox'] == [0, 10, 60, 20] and annotation['iscrowd'] == 1
        assert json.loads(report.read_text())['num_boxes'] == 1
