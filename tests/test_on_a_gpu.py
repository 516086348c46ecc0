"""What only a GPU shows: mixed precision, nccl, compiled graphs; and its answers are the CPU's."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from head_toys import CLASSES, HEADS, save_teacher, yolo
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_contrast import config_path
from mmdet_contrast.apis import add_classes_config, infer, train
from mmdet_contrast.visualization.cam_pictures import save_cams
from mmdet_contrast.visualization.detector_input import load_detector

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')

CONTRASTIVE = [f'{name}_shapes.py' for name in (
    'retina_contrast', 'fcos_contrast', 'gfl_contrast', 'yolov8_contrast_n',
)]  # fmt: skip
# an epoch is as many times three iterations
LENGTHS = [
    pytest.param(1, 4, id='12'),
    pytest.param(34, 10, id='1020', marks=pytest.mark.slow),
]
DTYPES = ('float16', 'bfloat16')


def config_of(family, root, num_classes=3):
    """A shipped config, or that of a head, for four of the twelve small pictures at a time."""
    base = 'yolov8_n_shapes.py' if family == 'yolo' else 'retina_shapes.py'
    cfg = Config.fromfile(config_path(base if family in HEADS else family))
    if family in HEADS:
        cfg.model = HEADS[family](num_classes)
    cfg.train_dataloader.batch_size = 4
    cfg.train_dataloader.dataset.data_root = f'{root}/'
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.default_hooks.logger.interval = 1
    cfg.visualizer.vis_backends = cfg.vis_backends = [dict(type='LocalVisBackend')]
    return cfg


def records(work_dir):
    """What a run logged of its iterations."""
    (path,) = Path(work_dir).glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def train_mixed(cfg, work_dir, dtype, times, epochs):
    """Train in mixed precision; all that is logged of losses, and all weights, are finite."""
    loader = cfg.train_dataloader
    loader.dataset = dict(type='RepeatDataset', times=times, dataset=loader.dataset)
    cfg.train_cfg.max_epochs = epochs
    cfg.optim_wrapper.dtype = dtype
    # one of this name that is there would log into its own folder
    cfg.visualizer.name = str(work_dir)
    runner = train(cfg, str(work_dir), amp=True)
    assert runner.optim_wrapper.cast_dtype == getattr(torch, dtype)
    # it is filled by the first step that the loss scaler does not skip
    assert runner.optim_wrapper.optimizer.state
    rows = records(work_dir)
    assert len(rows) == runner.iter == 3 * times * epochs
    for row in rows:
        losses = {key: value for key, value in row.items() if 'loss' in key}
        assert losses and all(map(math.isfinite, losses.values())), row
    for name, value in runner.model.state_dict().items():
        assert value.isfinite().all(), name


# --- mixed precision


@pytest.mark.parametrize(('times', 'epochs'), LENGTHS)
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('family', [*CONTRASTIVE, *HEADS])
def test_losses_and_weights_stay_finite(family, dtype, times, epochs, tiny_shapes, tmp_path):
    train_mixed(config_of(family, tiny_shapes), tmp_path, dtype, times, epochs)


@pytest.mark.parametrize(('times', 'epochs'), LENGTHS)
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('head', ['yolo', 'gfl', 'retina'])
def test_an_addition_stays_finite(head, dtype, times, epochs, tiny_shapes, tmp_path):
    old = config_of(head, tiny_shapes, num_classes=2)
    checkpoint = save_teacher(old.model, tmp_path / 'old.pth', CLASSES[:2])
    cfg = add_classes_config(
        old,
        checkpoint,
        str(tiny_shapes / 'annotations/instances_train.json'),
        str(tiny_shapes / 'train'),
        CLASSES[2:],
        work_dir=str(tmp_path / 'work'),
        cfg_options={'train_dataloader.batch_size': 4, 'train_cfg.max_epochs': epochs},
    )
    train_mixed(cfg, tmp_path / 'work', dtype, times, epochs)


def test_the_loss_scale_is_resumed(tiny_shapes, tmp_path):
    found = []
    # a scale so low that nothing overflows; the second run would begin with another one
    for epochs, scale in ((1, 4.0), (2, 65536.0)):
        cfg = config_of('yolo', tiny_shapes)
        cfg.train_cfg.max_epochs = epochs
        cfg.optim_wrapper.update(dtype='float16', loss_scale=dict(init_scale=scale))
        runner = train(cfg, str(tmp_path), amp=True, resume='auto')
        found.append((runner.iter, runner.optim_wrapper.loss_scaler.state_dict()))
    (first, before), (second, after) = found
    assert (first, before['scale'], before['_growth_tracker']) == (3, 4, 3)
    assert (second, after['scale'], after['_growth_tracker']) == (6, 4, 6)


# --- programs


def run_tool(command, work_dir, *options, **env):
    """Train for an epoch in a process of its own; return what it prints."""
    done = subprocess.run(
        [*map(str, command), '--work-dir', str(work_dir), '--cfg-options', *options],
        env=dict(os.environ, PYTHON=sys.executable, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert all(math.isfinite(row['loss']) for row in records(work_dir))
    assert (work_dir / 'epoch_1.pth').is_file()
    return done.stdout


@pytest.fixture
def config(tiny_shapes, tmp_path):
    """The file of a contrastive config of one epoch."""
    cfg = config_of(CONTRASTIVE[0], tiny_shapes)
    cfg.train_cfg.max_epochs = 1
    cfg.dump(str(tmp_path / 'config.py'))
    return tmp_path / 'config.py'


def test_one_process_goes_through_nccl(config, tmp_path, repo_root):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    command = ['bash', repo_root / 'tools/dist_train.sh', config, 1]
    text = run_tool(command, tmp_path / 'work', 'env_cfg.dist_cfg.backend=nccl',
                    NCCL_DEBUG='INFO', PORT=port)  # fmt: skip
    assert 'NCCL INFO' in text


def test_spawned_workers_load_for_a_gpu(config, tmp_path, repo_root):
    command = [sys.executable, repo_root / 'tools/train.py', config]
    run_tool(command, tmp_path / 'work', 'env_cfg.mp_cfg.mp_start_method=spawn',
             'train_dataloader.num_workers=2')  # fmt: skip


# --- the same answers


@pytest.mark.slow
def test_yolov8_compiled_gives_the_same_maps():
    model = MODELS.build(yolo()).cuda().eval()
    # fullgraph: a graph break is an error
    compiled = torch.compile(model, fullgraph=True)
    images = torch.rand(2, 3, 64, 96, device='cuda')
    with torch.no_grad():
        expected = model(images, mode='tensor')
        found = compiled(images, mode='tensor')
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=HEADS)
def detector(request, tiny_shapes, tmp_path):
    """Config and checkpoint of a detector that is not trained, whose scores differ."""
    cfg = config_of(request.param, tiny_shapes)
    cfg.model.test_cfg.update(score_thr=0.0, max_per_img=6)
    path = save_teacher(cfg.model, tmp_path / 'detector.pth', CLASSES)
    saved = torch.load(path, weights_only=False)
    for key, weight in saved['state_dict'].items():
        if 'cls' in key and weight.dim() == 4:
            weight.normal_(0, 0.2)
    torch.save(saved, path)
    return cfg, path


def pictures_agree(first, second):
    """All pictures of two folders, but for rounding."""
    names = sorted(path.name for path in first.iterdir())
    assert names and names == sorted(path.name for path in second.iterdir())
    for name in names:
        one, other = (cv2.imread(str(folder / name)).astype(int) for folder in (first, second))
        assert np.abs(one - other).mean() < 0.5, name


def test_detections_are_those_of_the_cpu(detector, tiny_shapes, tmp_path):
    found = {}
    for device in ('cpu', 'cuda'):
        infer(*detector, tiny_shapes / 'test', str(tmp_path / device), 0.0, device=device)
        files = sorted((tmp_path / device / 'results').glob('*.json'))
        found[device] = [json.loads(file.read_text())['detections'] for file in files]
    assert len(found['cpu']) == 4 and all(found['cpu'])
    for ours, theirs in zip(found['cuda'], found['cpu']):
        assert [one['name'] for one in ours] == [one['name'] for one in theirs]
        for one, other in zip(ours, theirs):
            assert one['score'] == pytest.approx(other['score'], abs=1e-3)
            assert one['box'] == pytest.approx(other['box'], abs=1e-2)
    pictures_agree(tmp_path / 'cuda/pictures', tmp_path / 'cpu/pictures')


def test_heat_maps_are_those_of_the_cpu(detector, tiny_shapes, tmp_path):
    notes = []
    for device in ('cpu', 'cuda'):
        model = load_detector(*detector, device=device)
        out = tmp_path / device
        saved = list(save_cams(model, str(tiny_shapes / 'test'), str(out), score_thr=0.0))
        assert any(picture.out_file for picture in saved)
        notes.append([picture.note for picture in saved])
    assert notes[0] == notes[1]
    pictures_agree(tmp_path / 'cuda', tmp_path / 'cpu')
