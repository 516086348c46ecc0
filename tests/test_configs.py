"""Every shipped config, as a user loads it."""

from pathlib import Path

import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path

CONFIGS = Path(config_path('retina_contrast_coco.py')).parent
NAMES = sorted(
    str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob('*.py') if '_base_' not in p.parts
)

# backbones alone, without a detector, validation or test
PRETRAINING = [name for name in NAMES if name.startswith(('simsiam/simsiam_', 'simsiam/simclr_'))]


def load(name):
    init_default_scope('mmdet')
    return Config.fromfile(CONFIGS / name)


@pytest.fixture(params=NAMES)
def any_cfg(request):
    return load(request.param)


@pytest.fixture(params=[n for n in NAMES if not n.startswith('simsiam/') or 'retina' in n])
def cfg(request):
    return load(request.param)


@pytest.fixture(params=PRETRAINING)
def pretraining_cfg(request):
    return load(request.param)


def walk(node):
    yield node
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from walk(child)


def test_registers_the_plugin_and_needs_no_torchvision(any_cfg):
    cfg = any_cfg
    assert cfg.default_scope == 'mmdet'
    assert 'mmdet_contrast' in cfg.custom_imports['imports']
    assert cfg.custom_imports['allow_failed_imports'] is False
    texts = [n for n in walk(cfg.to_dict()) if isinstance(n, str)]
    assert not [text for text in texts if text.startswith('torchvision://')]


def without_weights(node):
    """The config without weights to download."""
    if isinstance(node, dict):
        pretrained = (node.get('init_cfg') or {}) if isinstance(node.get('init_cfg'), dict) else {}
        if pretrained.get('type') == 'Pretrained' or 'checkpoint' in pretrained:
            node.pop('init_cfg')
        for child in node.values():
            without_weights(child)
    return node


def student_of(model):
    return model.student if model.type == 'DistillationDetector' else model


def classes_of(dataset):
    return dataset.get('metainfo', {}).get('classes', range(80))


def test_builds(cfg):
    model = MODELS.build(without_weights(cfg.model))
    data = cfg.train_dataloader.dataset
    parts = data.datasets if data.type == 'ConcatDataset' else [data]
    for part in (*parts, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        assert getattr(model, 'student', model).bbox_head.num_classes == len(classes_of(part))
        Compose([TRANSFORMS.build(t) for t in part.pipeline])
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert METRICS.get(evaluator.type) is not None
    for hook in cfg.get('custom_hooks', []):
        HOOKS.build(hook)


def test_pretraining_builds(pretraining_cfg):
    cfg = pretraining_cfg
    model = MODELS.build(cfg.model).train()
    images = dict(view1=torch.rand(2, 3, 64, 64), view2=torch.rand(2, 3, 64, 64))
    assert all(value.isfinite() for value in model(images, mode='loss').values())
    Compose([TRANSFORMS.build(t) for t in cfg.train_dataloader.dataset.pipeline])
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    assert cfg.train_dataloader.drop_last and cfg.sync_bn == 'torch'


def test_views_head_and_preprocessor_belong_together(cfg):
    data = cfg.train_dataloader.dataset
    data = data.datasets[0] if data.type == 'ConcatDataset' else data
    pipeline = [t['type'] for t in data.pipeline]
    model = student_of(cfg.model)
    contrastive = model.bbox_head.type.startswith('Contrastive')
    sampler = model.bbox_head.get('contrast', {}).get('sampler', {})
    contrastive &= sampler.get('type') != 'JitteredBoxes'
    assert (pipeline[-2:] == ['ContrastiveView', 'PackContrastiveInputs']) is contrastive
    assert (model.data_preprocessor.type == 'ContrastiveDataPreprocessor') is contrastive
    hooks = [h['type'] for h in cfg.get('custom_hooks', [])]
    assert ('DistillationHook' in hooks) is (cfg.model.type == 'DistillationDetector')
    for split in ('val', 'test'):
        pipeline = [t['type'] for t in cfg[f'{split}_dataloader'].dataset.pipeline]
        assert pipeline[-1] == 'PackDetInputs'


@pytest.mark.parametrize('data', ['coco', 'shapes', 'bccd', 'neu'])
def test_twins_differ_in_the_contrastive_part_only(data):
    plain = Config.fromfile(CONFIGS / f'retina_{data}.py').to_dict()
    contrast = Config.fromfile(CONFIGS / f'retina_contrast_{data}.py').to_dict()
    for cfg in (plain, contrast):
        cfg['model']['data_preprocessor'].pop('type')
        cfg['model']['bbox_head'].pop('type')
        cfg['model']['bbox_head'].pop('contrast', None)
        for pipeline in (cfg['train_pipeline'], cfg['train_dataloader']['dataset']['pipeline']):
            pipeline[:] = [t for t in pipeline if t['type'] != 'ContrastiveView'][:-1]
            for transform in pipeline:
                transform.pop('_scope_', None)  # left by MMEngine in what MMDetection's base says
    assert plain == contrast
