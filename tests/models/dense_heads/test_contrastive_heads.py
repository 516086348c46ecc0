import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.runner import Runner, load_checkpoint

from mmdet_contrast import config_path

HEADS = ('retina', 'fcos', 'gfl', 'atss')
NAMES = [f'loss_contrast_p{i}' for i in range(3, 8)]


def load(name):
    return Config.fromfile(config_path(name))


def contrastive_config(head):
    if head != 'atss':
        return load(f'{head}_contrast_shapes.py')
    # ATSS is GFL's head with another way to say how good a box is
    cfg = load('gfl_contrast_shapes.py')
    cfg.model.type = 'ATSS'
    old = cfg.model.bbox_head
    new = dict(
        type='ContrastiveATSSHead',
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )
    for key in ('num_classes', 'in_channels', 'stacked_convs', 'feat_channels', 'anchor_generator'):
        new[key] = old[key]
    cfg.model.bbox_head = dict(new, norm_cfg=old['norm_cfg'], contrast=old['contrast'])
    return cfg


def build(cfg):
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def one_batch(model, counts=(2, 3), views=True, size=96):
    torch.manual_seed(3)
    data = demo_mm_inputs(
        len(counts),
        [[3, size, size]] * len(counts),
        num_classes=3,
        num_items=list(counts),
        use_box_type=True,
    )
    for i in range(len(counts)) if views else ():
        data['inputs'][i] = torch.stack((data['inputs'][i], data['inputs'][i].flip(0)))
        instances = data['data_samples'][i].gt_instances
        instances.view_valid = torch.ones(len(instances), dtype=torch.bool)
    return model.data_preprocessor(data, training=True)


def losses_of(model, data):
    return model(data['inputs'], data['data_samples'], mode='loss')


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('counts', [(2, 3), (0,)])
def test_losses_and_gradients(head, counts):
    model = build(contrastive_config(head))
    losses = losses_of(model, one_batch(model, counts))
    assert {*NAMES, 'loss_cls', 'loss_bbox', 'contrast_trust'} <= set(losses)
    check_gradients(model, losses)
    if min(counts) > 1:
        assert all(losses[name] > 0 for name in NAMES)


def test_without_weight_and_with_one_view_it_is_retinanet_bit_for_bit():
    cfg = load('retina_contrast_shapes.py')
    cfg.model.bbox_head.contrast.criterion = dict(type='NTXentLoss', loss_weight=0)
    ours, theirs = build(cfg), build(load('retina_shapes.py'))
    theirs.load_state_dict(ours.state_dict(), strict=False)
    results = []
    for model in (ours, theirs):
        losses = losses_of(model, one_batch(model, views=False))
        model.parse_losses(losses)[0].backward()
        results.append((losses, dict(model.named_parameters())))
    for key in ('loss_cls', 'loss_bbox'):
        assert all(torch.equal(a, b) for a, b in zip(results[0][0][key], results[1][0][key]))
    for name, parameter in results[1][1].items():
        assert torch.equal(results[0][1][name].grad, parameter.grad), name


def test_detection_on_originals_is_that_of_the_originals_alone():
    cfg = load('retina_contrast_shapes.py')
    model = build(cfg).eval()  # running statistics, so that images do not influence one another
    plain = build(load('retina_shapes.py')).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    alone = losses_of(plain, one_batch(plain, views=False))
    losses = losses_of(model, one_batch(model))
    for key in ('loss_cls', 'loss_bbox'):
        for a, b in zip(losses[key], alone[key]):
            torch.testing.assert_close(a, b)


def test_no_view_is_an_error_that_says_what_to_set():
    model = build(load('retina_contrast_shapes.py'))
    with pytest.raises(
        RuntimeError, match='with ContrastiveView and PackContrastiveInputs and set'
    ):
        losses_of(model, one_batch(model, views=False))


def check_gradients(model, losses):
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize('head', ['retina', 'gfl'])
@pytest.mark.parametrize('views', [False, True])
def test_boxes_moved_in_the_same_image(head, views):
    cfg = contrastive_config(head)
    cfg.model.bbox_head.contrast.sampler = dict(type='JitteredBoxes')
    model = build(cfg)
    losses = losses_of(model, one_batch(model, views=views))
    assert all(losses[name] > 0 for name in NAMES)
    check_gradients(model, losses)


@pytest.mark.parametrize('head', HEADS)
def test_prediction_is_that_of_the_plain_head(head):
    model = build(contrastive_config(head)).eval()
    data = one_batch(model, views=False)
    predictions = model(data['inputs'], data['data_samples'], mode='predict')
    assert len(predictions) == 2 and 'scores' in predictions[0].pred_instances


def test_checkpoint_runs_under_the_plain_config(tmp_path):
    model = build(load('retina_contrast_shapes.py')).eval()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'trained.pth')
    plain = MODELS.build(load('retina_shapes.py').model).eval()
    load_checkpoint(plain, str(tmp_path / 'trained.pth'), map_location='cpu')
    data = one_batch(plain, views=False)
    for ours, theirs in zip(model.extract_feat(data['inputs']), plain.extract_feat(data['inputs'])):
        assert torch.equal(ours, theirs)
    extra = set(model.state_dict()) - set(plain.state_dict())
    assert extra and all(key.startswith('bbox_head.contrast.') for key in extra)


def tiny_run(cfg, root, work_dir, epochs=1):
    """Train a config on the small generated data set."""
    classes = tuple(json.load(open(root / 'annotations/instances_train.json'))['categories'])
    metainfo = dict(classes=tuple(c['name'] for c in classes))
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root, dataset.metainfo = f'{root}/', metainfo
        if split != 'train':
            ann_file = f'{root}/annotations/instances_{split}.json'
            cfg[f'{split}_evaluator'].ann_file = ann_file
    cfg.train_dataloader.batch_size = 4
    cfg.model.bbox_head.num_classes = len(classes)
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.default_hooks.logger.interval = 1
    cfg.param_scheduler = None
    cfg.work_dir = str(work_dir)
    # MMEngine hands out the visualizer of an earlier run with the same name
    cfg.visualizer.name = str(work_dir)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize('head', ['retina', pytest.param('gfl', marks=pytest.mark.slow)])
def test_training_logs_every_level(head, tiny_shapes, tmp_path):
    cfg = contrastive_config(head)
    if find_spec('tensorboard'):
        kinds = ('LocalVisBackend', 'TensorboardVisBackend')
        cfg.visualizer.vis_backends = [dict(type=kind) for kind in kinds]
    runner = tiny_run(cfg, tiny_shapes, tmp_path)
    lines = [json.loads(line) for line in open(next(tmp_path.glob('*/vis_data/scalars.json')))]
    logged = [line for line in lines if 'loss' in line]
    names = ['loss_cls', 'loss_bbox', *NAMES, 'contrast_trust']
    assert len(logged) == 3
    for line in logged:
        assert all(line[name] == line[name] for name in names)
        parts = sum(v for k, v in line.items() if k.startswith('loss_'))
        assert line['loss'] == pytest.approx(parts, rel=1e-4)
    text = next(tmp_path.glob('*/*.log')).read_text()
    assert all(f'{name}: ' in text for name in names)
    assert runner.epoch == 1
    event_accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    events = next(Path(tmp_path).glob('*/vis_data/events*'))
    accumulator = event_accumulator.EventAccumulator(str(events))
    accumulator.Reload()
    assert set(names) <= set(accumulator.Tags()['scalars'])
