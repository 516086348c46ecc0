"""Linear evaluation: the backbone stands still, the classifier learns."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmdet_contrast import config_path
from mmdet_contrast.models.selfsup import LinearClassifier
from mmdet_contrast.utils.config import LaunchError

BACKBONE = dict(type='mmdet.ResNet', depth=18, base_channels=4, out_indices=(2, 3), norm_eval=False)


def build(**kwargs):
    return LinearClassifier(**{'backbone': BACKBONE, 'num_classes': 3, 'in_channels': 32, **kwargs})


def tiny(root, work_dir, boxes=False):
    cfg = Config.fromfile(config_path('pretrain/linear_shapes.py'))
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


def pretrained(path, **kwargs):
    init_cfg = dict(type='Pretrained', checkpoint=str(path), **kwargs)
    return build(backbone=dict(BACKBONE, init_cfg=init_cfg))


def test_a_checkpoint_has_to_fill_the_backbone(tmp_path):
    path = tmp_path / 'backbone.pth'
    given = build().backbone.state_dict()
    for key, value in given.items():
        if key.endswith('running_mean'):
            value.normal_()
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
    names = ('bn1.running_mean', 'layer1.0.conv1.weight')
    wide = MODELS.build(dict(BACKBONE, base_channels=8)).state_dict()
    for weights, first in (
        *(({key: v for key, v in given.items() if key != name}, name) for name in names),
        ({f'backbone.{key}': value for key, value in given.items()}, 'conv1.weight'),
        (wide, 'conv1.weight'),
    ):
        torch.save(weights, path)
        with pytest.raises(LaunchError, match=f'at random, {first} first.*prefix='):
            pretrained(path).init_weights()


def test_statistics_of_a_checkpoint_may_be_as_they_were_built(tmp_path):
    # of a backbone that was trained with norm_eval=True
    path = tmp_path / 'backbone.pth'
    given = build().backbone.state_dict()
    torch.save(given, path)
    model = pretrained(path)
    model.init_weights()
    loaded = model.backbone.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in given.items())


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
    with pytest.raises(LaunchError, match='qkv.weight first'):
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
