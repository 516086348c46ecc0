"""Linear evaluation: the backbone stands still, the classifier learns."""

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmdet_contrast import config_path
from mmdet_contrast.engine.hooks import LinearCheckHook
from mmdet_contrast.models.selfsup import LinearClassifier
from mmdet_contrast.utils import launch
from mmdet_contrast.utils.launch import LaunchError

BACKBONE = dict(type='mmdet.ResNet', depth=18, base_channels=4, out_indices=(2, 3), norm_eval=False)


def build(**kwargs):
    return LinearClassifier(**{'backbone': BACKBONE, 'num_classes': 3, 'in_channels': 32, **kwargs})


def tiny(root, work_dir, boxes=False):
    cfg = Config.fromfile(config_path('simsiam/linear_shapes.py'))
    if boxes:
        plain = Config.fromfile(config_path('retina_shapes.py'))
        for split in ('train', 'val'):
            cfg[f'{split}_dataloader'].dataset = plain[f'{split}_dataloader'].dataset
        # the detector's test pipeline reads the boxes after Resize
        load, resize, boxes_of, pack = cfg.val_dataloader.dataset.pipeline
        cfg.val_dataloader.dataset.pipeline = [load, boxes_of, resize, pack]
    cfg.work_dir, cfg.experiment_name = str(work_dir), f'linear-{str(work_dir)[-60:]}'
    cfg.visualizer = dict(type='DetLocalVisualizer', name=str(work_dir), vis_backends=[])
    cfg.model.backbone.update(base_channels=4, init_cfg=None)
    cfg.model.in_channels = 32
    cfg.train_cfg.update(max_epochs=3, val_interval=3)
    for split in ('train', 'val'):
        data = cfg[f'{split}_dataloader'].dataset
        (data if boxes else data.dataset).data_root = f'{root}/'
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    return cfg


@pytest.mark.parametrize('boxes', [False, True])
def test_only_the_classifier_moves(tiny_shapes, tmp_path, boxes):
    runner = Runner.from_cfg(tiny(tiny_shapes, tmp_path, boxes))
    runner.model.init_weights()
    runner.model._is_init = True
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    seen = []
    losses = runner.model.train_step

    def step(*args, **kwargs):
        result = losses(*args, **kwargs)
        seen.append(float(result['loss_cls']))
        return result

    runner.model.train_step = step
    runner.train()
    after = runner.model.state_dict()
    buffers = [key for key in before if 'running' in key or 'num_batches' in key]
    assert buffers
    for key in before:
        if key.startswith('backbone.'):
            assert torch.equal(before[key], after[key]), key
        elif key.startswith('classifier.'):
            assert not torch.equal(before[key], after[key]), key
    assert seen[-1] < seen[0]
    metrics = runner.val_loop.run()
    assert 0 <= metrics['accuracy/top1'] <= 1 and 0 <= metrics['accuracy/class_mean'] <= 1


def mim_train(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def mim_test(cfg, checkpoint):
    return Runner.from_cfg(cfg).test()


# what a user starts: the programs of this package, or those of MMDetection
PROGRAMS = pytest.mark.parametrize(
    'train, test', [(launch.train, launch.test), (mim_train, mim_test)], ids=['tools', 'mim']
)


@PROGRAMS
def test_boxes_of_the_original_image_are_refused(tiny_shapes, tmp_path, train, test):
    cfg = tiny(tiny_shapes, tmp_path, boxes=True)
    good = cfg.val_dataloader.to_dict()
    load, boxes_of, resize, pack = cfg.val_dataloader.dataset.pipeline
    cfg.val_dataloader.dataset.pipeline = [load, resize, boxes_of, pack]
    words = '_dataloader: its pipeline has Resize before LoadAnnotations.*directly after the image'
    with pytest.raises(LaunchError, match='val' + words):
        train(cfg)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.test_cfg = dict(type='TestLoop')
    cfg.val_dataloader = good
    cfg.experiment_name += '-test'
    (tmp_path / 'x.pth').touch()
    with pytest.raises(LaunchError, match='test' + words):
        test(cfg, str(tmp_path / 'x.pth'))


@PROGRAMS
def test_folders_that_number_their_classes_differently_are_refused(
    tiny_shapes, tmp_path, train, test
):
    for split, names in (('train', 'abc'), ('val', 'ac')):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                picture = np.zeros((8, 8, 3), np.uint8)
                cv2.imwrite(str(tmp_path / split / name / f'{i}.png'), picture)
    cfg = tiny(tiny_shapes, tmp_path / 'run')
    folders = Config.fromfile(config_path('simsiam/linear_folder.py'))
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset = folders[f'{split}_dataloader'].dataset
        cfg[f'{split}_dataloader'].dataset.data_root = str(tmp_path / split)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    words = (
        r"train_dataloader has the classes \['a', 'b', 'c'\] and val_dataloader has the classes "
        r"\['a', 'c'\].*set metainfo=dict\(classes="
    )
    with pytest.raises(LaunchError, match=words):
        train(cfg)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=('a', 'b', 'c'))
    cfg.experiment_name += '-named'
    labels = [sample['data_samples'].gt_label for sample in train(cfg).val_dataloader.dataset]
    assert labels == [0, 0, 0, 2, 2, 2]


def pretrained(path, **kwargs):
    init_cfg = dict(type='Pretrained', checkpoint=str(path), **kwargs)
    return build(backbone=dict(BACKBONE, init_cfg=init_cfg))


def test_a_checkpoint_has_to_fill_the_backbone(tmp_path):
    path = tmp_path / 'backbone.pth'
    given = build().backbone.state_dict()
    given['conv1.weight'] += 1
    part = dict(prefix='backbone')
    for kwargs, prefix in ((dict(), ''), (dict(), 'module.'), (part, 'backbone.')):
        weights = {prefix + key: value for key, value in given.items()}
        weights['fc.weight'] = torch.zeros(2, 2)
        # left out by what was written before batches were counted
        weights.pop(prefix + 'bn1.num_batches_tracked')
        torch.save(dict(state_dict=weights), path)
        model = pretrained(path, **kwargs)
        model.init_weights()
        assert torch.equal(model.backbone.conv1.weight, given['conv1.weight'])
        # what is loaded later, to test or resume, is not looked at
        assert not model.backbone._load_state_dict_pre_hooks
        model.load_state_dict({}, strict=False)
    torch.save({key: value for key, value in given.items() if key != 'bn1.running_mean'}, path)
    with pytest.raises(LaunchError, match=r'backbone.pth.*: bn1.running_mean is not in it: give'):
        pretrained(path).init_weights()
    torch.save({f'backbone.{key}': value for key, value in given.items()}, path)
    with pytest.raises(LaunchError, match=r"more such.*begin with 'backbone.'.*export_backbone.py"):
        pretrained(path).init_weights()
    wide = MODELS.build(dict(BACKBONE, base_channels=8))
    torch.save(wide.state_dict(), path)
    with pytest.raises(LaunchError, match=r'conv1.weight is \(8, 3.*\(4, 3.*checkpoint of this'):
        pretrained(path).init_weights()


def test_backbones_that_read_the_checkpoint_themselves(tmp_path):
    path = str(tmp_path / 'swin.pth')
    swin = dict(type='mmdet.SwinTransformer', embed_dims=8, depths=(1, 1), num_heads=(1, 1))
    swin.update(strides=(4, 2), out_indices=(0, 1))
    given = MODELS.build(swin).state_dict()
    # official ones have no norms of the outputs, and Swin takes the prefix off
    weights = {f'backbone.{k}': v for k, v in given.items() if not k.startswith('norm')}
    swin['init_cfg'] = ConfigDict(type='Pretrained', checkpoint=path)
    torch.save(dict(state_dict=weights), path)
    model = build(backbone=swin)
    model.init_weights()
    loaded = model.backbone.state_dict()
    assert len(weights) < len(given) and all(torch.equal(loaded[k], given[k]) for k in given)
    del weights['backbone.stages.0.blocks.0.attn.w_msa.qkv.weight']
    torch.save(dict(state_dict=weights), path)
    with pytest.raises(LaunchError, match='qkv.weight is not in it: give'):
        build(backbone=swin).init_weights()


def crops(labels=(0, 2)):
    from mmdet.structures import DetDataSample

    return [DetDataSample(metainfo=dict(img_shape=(64, 64), gt_label=i)) for i in labels]


def test_loss_and_predictions_by_hand():
    model = build().train()
    assert model.training and not any(m.training for m in model.backbone.modules())
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        'classifier.weight',
        'classifier.bias',
    ]
    inputs, samples = torch.rand(2, 3, 64, 64), crops()
    features = model.backbone(inputs)[-1].mean(dim=(2, 3))
    logits = features @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(inputs, samples), logits)
    losses = model(inputs, samples, mode='loss')
    expected = -logits.log_softmax(dim=1)[[0, 1], [0, 2]].mean()
    torch.testing.assert_close(losses['loss_cls'], expected)
    assert losses['accuracy'] == (logits.argmax(dim=1) == torch.tensor([0, 2])).float().mean()
    first, second = model(inputs, samples, mode='predict')
    torch.testing.assert_close(second.class_scores, logits[1:].softmax(dim=1))
    assert first.class_labels.tolist() == [0] and second.class_labels.tolist() == [2]


def test_a_classifier_just_built_leaves_the_statistics_alone():
    model = build()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model(torch.rand(2, 3, 64, 64), crops(), mode='loss')
    after = model.backbone.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_all_levels_are_joined():
    model = build(level='all', in_channels=16 + 32)
    assert model(torch.rand(2, 3, 64, 64), crops()).shape == (2, 3)


def test_a_batch_without_boxes_is_zero_and_connected():
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    sample = DetDataSample(metainfo=dict(img_shape=(64, 64)))
    sample.gt_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    model = build().train()
    losses = model(torch.rand(1, 3, 64, 64), [sample], mode='loss')
    losses['loss_cls'].backward()
    assert losses['loss_cls'] == 0
    assert all((p.grad == 0).all() for p in model.classifier.parameters())
    (predicted,) = model(torch.rand(1, 3, 64, 64), [sample], mode='predict')
    assert predicted.class_scores.shape == (0, 3)


@pytest.mark.parametrize('name', ['shapes', 'bccd', 'folder'])
def test_shipped_configs_fit_together(name):
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path(f'simsiam/linear_{name}.py'))
    backbone = cfg.model.backbone
    # what the detector of the same data starts from
    if name != 'folder':
        detector = Config.fromfile(config_path(f'retina_{name}.py')).model.backbone
        assert backbone.base_channels == detector.base_channels
        classes = cfg.train_dataloader.dataset.dataset.metainfo.classes
        assert cfg.model.num_classes == len(classes)
    backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    assert model(torch.rand(1, 3, 64, 64), crops([0])).shape == (1, cfg.model.num_classes)
    for split in ('train', 'val', 'test'):
        data = cfg[f'{split}_dataloader'].dataset
        assert DATASETS.get(data.type).whole_images
        Compose([TRANSFORMS.build(step) for step in data.pipeline])
        assert 'gt_label' in data.pipeline[-1].meta_keys
    METRICS.build(cfg.val_evaluator)
    assert [type(HOOKS.build(hook)) for hook in cfg.custom_hooks] == [LinearCheckHook]


def test_bad_input_is_one_sentence():
    with pytest.raises(ValueError, match='in_channels=7.*set model.in_channels=32'):
        build(in_channels=7)(torch.rand(1, 3, 64, 64), crops([0]))
    with pytest.raises(ValueError, match="mode='train'"):
        build()(torch.rand(1, 3, 64, 64), crops([0]), mode='train')
    with pytest.raises(ValueError, match='label 5 and num_classes=3.*set model.num_classes'):
        build()(torch.rand(2, 3, 64, 64), crops([0, 5]), mode='loss')
    with pytest.raises(ValueError, match='LinearClassifier got no data_samples'):
        build()(torch.rand(1, 3, 64, 64))
    (forgotten,) = crops([0])
    forgotten.pop('gt_label')
    with pytest.raises(ValueError, match=r'end the pipeline with PackDetInputs\(meta_keys='):
        build()(torch.rand(1, 3, 64, 64), [forgotten])
