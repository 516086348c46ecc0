"""Every shipped config, and every recipe in the families' READMEs, as a user loads it."""

import argparse
import functools
import re
import shlex
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.config import Config, DictAction

from mmdet_contrast.utils.config import config_path

CONFIGS = Path(config_path('retina_contrast_coco.py')).parent
ROOT = CONFIGS.parent
NAMES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ('configs', 'projects')
    for path in (ROOT / folder).rglob('*.py')
    if '_base_' not in path.parts and re.search(r'^_base_ = ', path.read_text(), re.M)
)
FAMILIES = sorted(path.parent.name for path in CONFIGS.glob('*/README.md'))
# backbones alone, without a detector, validation or test
PRETRAINING = [name for name in NAMES if re.search('/(simsiam|simclr)_', name)]
LINEAR = [name for name in NAMES if '/linear_' in name]
DETECTORS = [name for name in NAMES if name not in (*PRETRAINING, *LINEAR)]


@functools.lru_cache(maxsize=None)
def read(name):
    return Config.fromfile(ROOT / name)


def load(name):
    return deepcopy(read(name))


def walk(node):
    yield node
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from walk(child)


@pytest.mark.parametrize('name', NAMES)
def test_registers_and_checks_and_needs_no_torchvision(name):
    cfg = load(name)
    assert cfg.default_scope == 'mmdet'
    assert cfg.custom_imports == dict(imports=['mmdet_contrast'], allow_failed_imports=False)
    assert cfg.default_hooks.run_check.type == 'RunCheckHook'
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


def check_detector(cfg):
    """Build everything but the data, and compare the numbers of classes."""
    model = MODELS.build(without_weights(deepcopy(cfg.model)))
    for split in ('train', 'val', 'test'):
        data = cfg[f'{split}_dataloader'].dataset
        assert getattr(model, 'student', model).bbox_head.num_classes == len(classes_of(data))
        Compose([TRANSFORMS.build(t) for t in data.pipeline])
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert METRICS.get(evaluator.type) is not None
    for hook in cfg.get('custom_hooks', []):
        HOOKS.build(hook)


@pytest.mark.parametrize('name', DETECTORS)
def test_builds(name):
    check_detector(load(name))


def test_backbones_of_imagenet_get_the_pictures_that_they_were_trained_on():
    means = {}
    for name in DETECTORS:
        model = load(name).model
        init_cfg = model.get('backbone', {}).get('init_cfg') or {}
        if '://' in init_cfg.get('checkpoint', ''):
            means[name] = (model.data_preprocessor.mean, model.data_preprocessor.std)
    assert 'configs/yolov8/yolov8_swin_t_coco.py' in means
    expected = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    assert means == dict.fromkeys(means, expected)


@pytest.mark.parametrize('name', PRETRAINING)
def test_pretraining_builds(name):
    cfg = load(name)
    model = MODELS.build(cfg.model).train()
    images = dict(view1=torch.rand(2, 3, 64, 64), view2=torch.rand(2, 3, 64, 64))
    assert all(value.isfinite() for value in model(images, mode='loss').values())
    Compose([TRANSFORMS.build(t) for t in cfg.train_dataloader.dataset.pipeline])
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    assert cfg.train_dataloader.drop_last and cfg.sync_bn == 'torch'


@pytest.mark.parametrize('name', LINEAR)
def test_linear_evaluation_builds(name):
    cfg = load(name)
    model = MODELS.build(without_weights(cfg.model))
    images = torch.rand(2, 3, 64, 64)
    assert model.backbone(images)[-1].shape[1] == cfg.model.in_channels
    for split in ('train', 'val', 'test'):
        data = cfg[f'{split}_dataloader'].dataset
        Compose([TRANSFORMS.build(t) for t in data.pipeline])
        if 'dataset' in data:
            assert cfg.model.num_classes == len(data.dataset.metainfo.classes)


@pytest.mark.parametrize('name', DETECTORS)
def test_views_head_and_preprocessor_belong_together(name):
    cfg = load(name)
    pipeline = [t['type'] for t in cfg.train_dataloader.dataset.pipeline]
    model = student_of(cfg.model)
    contrastive = model.bbox_head.type.startswith('Contrastive')
    assert (pipeline[-2:] == ['ContrastiveView', 'PackContrastiveInputs']) is contrastive
    assert (model.data_preprocessor.type == 'ContrastiveDataPreprocessor') is contrastive
    hooks = [h['type'] for h in cfg.get('custom_hooks', [])]
    assert ('DistillationHook' in hooks) is (cfg.model.type == 'DistillationDetector')
    for split in ('val', 'test'):
        pipeline = [t['type'] for t in cfg[f'{split}_dataloader'].dataset.pipeline]
        assert pipeline[-1] == 'PackDetInputs'


@pytest.mark.parametrize('data', ['coco', 'shapes', 'bccd', 'neu'])
def test_twins_differ_in_the_contrastive_part_only(data):
    folder = 'configs' if data == 'coco' else 'configs/contrast'
    plain = load(f'{folder}/retina_{data}.py').to_dict()
    contrast = load(f'{folder}/retina_contrast_{data}.py').to_dict()
    contrast.pop('contrast_recipe')
    for cfg in (plain, contrast):
        cfg['model']['data_preprocessor'].pop('type')
        cfg['model']['bbox_head'].pop('type')
        cfg['model']['bbox_head'].pop('contrast', None)
        for pipeline in (cfg['train_pipeline'], cfg['train_dataloader']['dataset']['pipeline']):
            pipeline[:] = [t for t in pipeline if t['type'] != 'ContrastiveView'][:-1]
            for transform in pipeline:
                transform.pop('_scope_', None)  # left by MMEngine in what MMDetection's base says
    assert plain == contrast


# --- what the READMEs show in place of further configs


def recipes(kind):
    """The code blocks of a kind in the READMEs of the families."""
    for family in FAMILIES:
        text = (CONFIGS / family / 'README.md').read_text()
        for block in re.findall(rf'```{kind}\n(.*?)```', text, re.S):
            yield family, block


COMMANDS = [
    line
    for _, block in recipes('shell')
    for line in block.replace('\\\n', ' ').splitlines()
    if '--cfg-options' in line
]
SNIPPETS = [block for _, block in recipes('python')]


def parse(command):
    """The config of a command line, with its options merged."""
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(shlex.split(command)[2:])
    cfg = load(args.config)
    cfg.merge_from_dict(args.cfg_options)
    return cfg


@pytest.mark.parametrize('command', COMMANDS, ids=lambda c: ' '.join(c.split()[2:])[:60])
def test_recipes_of_one_line_build(command):
    cfg = parse(command)
    if cfg.model.type == 'LinearClassifier':
        MODELS.build(cfg.model)
    else:
        check_detector(cfg)


@pytest.mark.parametrize('snippet', SNIPPETS, ids=lambda s: s.splitlines()[-2][:40])
def test_recipes_of_a_few_lines_build(snippet, tmp_path):
    (tmp_path / 'recipe.py').write_text(snippet)
    check_detector(Config.fromfile(tmp_path / 'recipe.py'))


def test_recipes_are_there():
    assert FAMILIES == ['contrast', 'distill', 'pretrain', 'yolov8']
    text = ' '.join((*COMMANDS, *SNIPPETS))
    for word in ('same_class', 'SupConLoss', 'SimSiamLoss', 'JitteredBoxes'):
        assert word in text


def test_every_config_is_in_the_index():
    modelindex = pytest.importorskip('modelindex')
    models = modelindex.load(str(ROOT / 'model-index.yml')).models
    configs = [name for name in NAMES if name.startswith('configs/')]
    assert sorted(model.config for model in models) == configs
    for model in models:
        assert model.name == Path(model.config).stem
        assert model.metadata.data['Epochs'] == load(model.config).train_cfg.max_epochs
