"""Tiny training runs of the shipped YOLOv8 configs through MMEngine's Runner."""

import json

import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_contrast import config_path

CLASSES = ('striped_disc', 'checkered_square', 'dotted_triangle')


def tiny_config(name, root, work_dir, size=64, max_epochs=1, batch_size=4):
    """A shipped config on the small generated data set, with small pictures."""
    cfg = Config.fromfile(config_path(name))
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    cfg.visualizer = dict(
        type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name=str(work_dir)
    )
    cfg.train_cfg.update(max_epochs=max_epochs, val_interval=max_epochs)
    cfg.train_cfg.pop('dynamic_intervals', None)
    cfg.model.bbox_head.num_classes = len(CLASSES)
    cfg.model.backbone.pop('init_cfg', None)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=batch_size, num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=f'{root}/',
            ann_file=f'annotations/instances_{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=CLASSES),
        )
        if split != 'train':
            cfg[f'{split}_evaluator'].ann_file = f'{root}/annotations/instances_{split}.json'
    for pipeline in (
        cfg.train_dataloader.dataset.pipeline,
        cfg.val_dataloader.dataset.pipeline,
        cfg.test_dataloader.dataset.pipeline,
        *(h.switch_pipeline for h in cfg.custom_hooks if h.type == 'PipelineSwitchHook'),
    ):
        for step in pipeline:
            for key in ('scale', 'img_scale', 'size'):
                if key in step:
                    step[key] = (size, size)
            if step.get('border'):
                step.border = (-size // 2, -size // 2)
    return cfg


def logged(work_dir):
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    'name',
    [
        pytest.param('yolov8/yolov8_swin_t_coco.py', marks=pytest.mark.slow),
        'yolov8/yolov8_contrast_n_shapes.py',
    ],
)
def test_trains_a_few_steps_and_evaluates(name, tiny_shapes, tmp_path):
    cfg = tiny_config(name, tiny_shapes, tmp_path / 'run')
    cfg.default_hooks.logger.interval = 1
    runner = Runner.from_cfg(cfg)
    runner.train()
    rows = [row for row in logged(tmp_path / 'run') if 'loss_cls' in row]
    # EMA evaluates its average; steps are 12 / 4
    assert len(rows) == 3
    keys = {'loss', 'loss_cls', 'loss_bbox', 'loss_dfl'}
    if 'contrast' in name:
        keys |= {'loss_contrast_p3', 'loss_contrast_p4', 'loss_contrast_p5'}
    assert {key for key in rows[0] if 'loss' in key} == keys
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
    assert all(row['loss_bbox'] > 0 for row in rows)


def test_mosaic_ends_and_momentum_and_biases_warm_up(tiny_shapes, tmp_path):
    cfg = tiny_config('yolov8/yolov8_n_coco.py', tiny_shapes, tmp_path / 'run', max_epochs=2)
    switch = next(h for h in cfg.custom_hooks if h.type == 'PipelineSwitchHook')
    switch.switch_epoch = 1
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    runner = Runner.from_cfg(cfg)
    seen = []
    call_hook = runner.call_hook

    def record(name, **kwargs):
        call_hook(name, **kwargs)
        if name == 'before_train_iter':
            steps = [type(t).__name__ for t in runner.train_dataloader.dataset.pipeline.transforms]
            groups = runner.optim_wrapper.param_groups
            names = [n for n, p in runner.model.named_parameters()]
            bias = names.index('bbox_head.head_module.cls_convs.0.2.bias')
            seen.append(('CachedMosaic' in steps, groups[0]['momentum'], groups[bias]['lr']))

    runner.call_hook = record
    runner.train()
    assert [mosaic for mosaic, _, _ in seen] == [True] * 3 + [False] * 3
    momenta = [momentum for _, momentum, _ in seen]
    assert momenta[0] == pytest.approx(0.8)
    assert momenta == sorted(momenta) and momenta[-1] > 0.8
    rates = [rate for _, _, rate in seen]
    assert rates[0] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)


@pytest.fixture(scope='module')
def trained(tiny_shapes, tmp_path_factory):
    """Config and checkpoint of a small run."""
    work_dir = tmp_path_factory.mktemp('yolov8') / 'run'
    cfg = tiny_config('yolov8/yolov8_n_shapes.py', tiny_shapes, work_dir)
    Runner.from_cfg(cfg).train()
    cfg.model.test_cfg.score_thr = 0.0
    cfg.dump(str(work_dir / 'config.py'))
    return str(work_dir / 'config.py'), str(work_dir / 'epoch_1.pth')


def test_inferencer(trained, tiny_shapes):
    config, checkpoint = trained
    picture = str(next((tiny_shapes / 'test').iterdir()))
    inferencer = DetInferencer(config, checkpoint, device='cpu', show_progress=False)
    (result,) = inferencer(picture, no_save_vis=True)['predictions']
    assert 0 < len(result['bboxes']) <= 300
    assert set(result['labels']) <= {0, 1, 2}


def test_fewer_labels_and_other_nms_by_config(trained, tiny_shapes):
    from mmdet.apis import inference_detector

    config, checkpoint = trained
    picture = str(next((tiny_shapes / 'test').iterdir()))
    options = {'model.test_cfg.multi_label': False, 'model.test_cfg.nms.class_agnostic': True}
    many = init_detector(config, checkpoint, device='cpu')
    few = init_detector(config, checkpoint, device='cpu', cfg_options=options)
    found = [inference_detector(model, picture).pred_instances for model in (many, few)]
    assert len(found[1]) < len(found[0])
