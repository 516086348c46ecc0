"""A run that is killed in the middle of an epoch and resumed."""

import subprocess
import sys

import pytest
import torch

CONFIG = """
_base_ = '{base}'
# checkpoints hold neither random states nor the queue: nothing random here, and no queue
contrast = dict(queue=None, sampler=dict(background=0))
model = dict(bbox_head=dict(num_classes=3, contrast=contrast))
data = '{root}/'
metainfo = dict(classes=('striped_disc', 'checkered_square', 'dotted_triangle'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='ContrastiveView', zoom_range=(2.0, 2.0)),
    dict(type='PackContrastiveInputs'),
]
train_dataloader = dict(
    batch_size=4, dataset=dict(data_root=data, metainfo=metainfo, pipeline=train_pipeline))
val_dataloader, val_evaluator, val_cfg = None, None, None
test_dataloader, test_evaluator, test_cfg = None, None, None
train_cfg = dict(max_epochs=3)
custom_imports = dict(
    imports=['mmdet_contrast', 'killer'], allow_failed_imports=False)
custom_hooks = [dict(type='KillHook')]
"""
# kill -9 in the second of the three iterations of the second epoch
KILLER = """
import os, signal
from mmdet.registry import HOOKS
from mmengine.hooks import Hook

@HOOKS.register_module()
class KillHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 4 and 'KILL' in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def train(tiny_shapes, tmp_path, repo_root, monkeypatch):
    base = repo_root / 'configs/contrast/retina_contrast_shapes.py'
    (tmp_path / 'config.py').write_text(CONFIG.format(base=base, root=tiny_shapes))
    (tmp_path / 'killer.py').write_text(KILLER)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')

    def run(work_dir, *args):
        command = [sys.executable, str(repo_root / 'tools/train.py'), str(tmp_path / 'config.py')]
        return subprocess.run(
            [*command, '--work-dir', str(tmp_path / work_dir), *args],
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.slow
def test_killed_and_resumed_ends_where_the_uninterrupted_run_ends(train, tmp_path, monkeypatch):
    finished = train('whole')
    assert finished.returncode == 0, finished.stderr
    monkeypatch.setenv('KILL', '1')
    killed = train('broken')
    assert killed.returncode == -9
    assert not (tmp_path / 'broken/epoch_2.pth').exists()
    monkeypatch.delenv('KILL')
    resumed = train('broken', '--resume')
    assert resumed.returncode == 0, resumed.stderr
    whole, broken = (
        torch.load(tmp_path / name / 'epoch_3.pth', weights_only=False)['state_dict']
        for name in ('whole', 'broken')
    )
    assert whole.keys() == broken.keys()
    for name, value in whole.items():
        torch.testing.assert_close(broken[name], value, atol=1e-4, rtol=1e-3, msg=name)
