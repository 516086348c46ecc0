"""Distillation and freezing in two gloo processes, launched as a user launches them."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path

CONFIG = """
_base_ = '{base}'
root = '{root}/'
metainfo = dict(classes=('striped_disc', 'checkered_square', 'dotted_triangle'))
model = dict(
    _delete_=True,
    type='DistillationDetector',
    student=_base_.model,
    teacher=dict(_base_.model, bbox_head=dict(_base_.model.bbox_head, num_classes=2)),
    teacher_checkpoint='{teacher}',
    start_from_teacher=True,
    distillers=[
        dict(source='neck', loss=dict(type='ChannelWiseDivergence')),
        dict(source='bbox_head.cls', loss=dict(type='LogitsKLDivergence')),
    ],
)
train_dataloader = dict(batch_size=3, dataset=dict(data_root=root, metainfo=metainfo))
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None
train_cfg = dict(max_epochs=2)
custom_imports = dict(imports=['mmdet_contrast', 'recorder'], allow_failed_imports=False)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='DistillationHook'),
    dict(type='FreezeBackboneHook', freeze_epochs=1, modules=('student.backbone',)),
    dict(type='SumHook'),
]
find_unused_parameters = True
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
vis_backends = None
default_hooks = dict(logger=dict(interval=1))
"""
RECORDER = """
import json
from mmdet.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook

@HOOKS.register_module()
class SumHook(Hook):
    priority = 'VERY_LOW'
    sums = []

    def after_train_epoch(self, runner):
        model = runner.model.module.student
        self.sums.append([
            sum(p.double().abs().sum().item() for p in part.parameters())
            for part in (model.backbone, model.neck, model.bbox_head)])
        with open(f'{runner.work_dir}/sums{get_rank()}.json', 'w') as file:
            json.dump(self.sums, file)
"""


@pytest.mark.slow
def test_ranks_agree_before_and_after_the_backbone_is_freed(tiny_shapes, tmp_path, repo_root):
    base = config_path('yolov8/yolov8_n_shapes.py')
    init_default_scope('mmdet')
    torch.manual_seed(0)
    cfg = Config.fromfile(base).model
    cfg.bbox_head.num_classes = 2
    teacher = MODELS.build(cfg)
    teacher.init_weights()
    path = tmp_path / 'teacher.pth'
    meta = dict(dataset_meta=dict(classes=('striped_disc', 'checkered_square')))
    torch.save(dict(state_dict=teacher.state_dict(), meta=meta), path)
    (tmp_path / 'config.py').write_text(CONFIG.format(base=base, root=tiny_shapes, teacher=path))
    (tmp_path / 'recorder.py').write_text(RECORDER)

    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [str(repo_root / 'tools/dist_train.sh'), 'config.py', '2', '--work-dir', 'run'],
        cwd=tmp_path,
        env=dict(
            os.environ,
            CUDA_VISIBLE_DEVICES='',
            PORT=str(port),
            PYTHON=sys.executable,
            PYTHONPATH=str(tmp_path),
        ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = [json.loads((tmp_path / f'run/sums{r}.json').read_text()) for r in (0, 1)]
    assert first == second
    start = sum(p.double().abs().sum().item() for p in teacher.backbone.parameters())
    assert first[0][0] == pytest.approx(start, rel=1e-9)
    assert first[1][0] != first[0][0]
    assert first[0][1] != first[1][1]
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(row['loss_distill_neck'] > 0 for row in rows if 'loss' in row)
