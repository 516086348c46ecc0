"""The shipped RetinaNet, tiny, with a KNNMonitorHook: 3 iterations of 64 x 64 pictures an epoch."""

import json

import torch
from mmengine.config import Config
from mmengine.runner import Runner

import mmdet_contrast  # noqa: F401
from mmdet_contrast import config_path


def tiny_config(root, work_dir, hooks, max_epochs=2, contrastive=False):
    name = 'retina_contrast_shapes.py' if contrastive else 'retina_shapes.py'
    cfg = Config.fromfile(config_path(name))
    cfg.work_dir, cfg.experiment_name = str(work_dir), f'knn-{str(work_dir)[-60:]}'
    cfg.visualizer = dict(
        type='DetLocalVisualizer', name=str(work_dir), vis_backends=[dict(type='LocalVisBackend')]
    )
    cfg.model.backbone.update(base_channels=4)
    cfg.model.neck.update(in_channels=[4, 8, 16, 32], out_channels=16)
    cfg.model.neck.norm_cfg.num_groups = cfg.model.bbox_head.norm_cfg.num_groups = 4
    cfg.model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    if contrastive:
        cfg.model.bbox_head.contrast.update(in_channels=16, sampler=dict(pool_size=3))
    cfg.train_cfg.update(max_epochs=max_epochs, val_interval=100)
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.batch_size = 4
        loader.dataset.data_root = f'{root}/'
        for step in loader.dataset.pipeline:
            if 'scale' in step:
                step.scale = (64, 64)
    cfg.val_evaluator.ann_file = f'{root}/annotations/instances_val.json'
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
    cfg.default_hooks.logger.interval = 1
    cfg.param_scheduler = []
    return cfg


def train(root, work_dir, *hooks, **kwargs):
    runner = Runner.from_cfg(tiny_config(root, work_dir, hooks, **kwargs))
    runner.train()
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    return runner, [row for row in rows if any(key.startswith('knn/') for key in row)]


def weights_of(runner):
    return {key: value.clone() for key, value in runner.model.state_dict().items()}


def equal(first, second):
    """To the last bit; on a GPU, which adds in any order, to what two equal runs differ by."""
    rtol, atol = (1e-3, 1e-5) if torch.cuda.is_available() else (0, 0)
    return first.keys() == second.keys() and all(
        torch.allclose(first[k].double(), second[k].double(), rtol=rtol, atol=atol) for k in first
    )
