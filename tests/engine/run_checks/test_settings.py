"""Loaders, optimizer and best checkpoint of a config."""

from contextlib import nullcontext

import pytest
from mmdet.engine.hooks import PipelineSwitchHook
from mmengine.hooks import CheckpointHook, Hook
from torch import nn
from torch.optim import SGD

from mmdet_contrast.engine.run_checks.settings import (
    check_loader,
    check_optimizer,
    check_save_best,
    check_switched_pipelines,
)
from mmdet_contrast.models.contrast import RegionContrast
from mmdet_contrast.utils.config import LaunchError

COCO = dict(type='CocoMetric', metric='bbox')


def test_a_switched_pipeline_makes_views_where_they_are_needed():
    plain, views = [dict(type='PackDetInputs')], [dict(type='mmdet.PackContrastiveInputs')]
    for pipeline, sampler, weight, refused in (
        (plain, 'ViewBoxes', 1.0, True),
        (views, 'ViewBoxes', 1.0, False),
        (plain, 'JitteredBoxes', 1.0, False),
        (plain, 'ViewBoxes', 0.0, False),
    ):
        hook = PipelineSwitchHook(1, [dict(type='LoadImageFromFile'), *pipeline])
        criterion = dict(type='NTXentLoss', loss_weight=weight)
        branch = RegionContrast(8, sampler=dict(type=sampler), criterion=criterion)
        with pytest.raises(LaunchError, match='makes none') if refused else nullcontext():
            check_switched_pipelines([Hook(), hook], nn.Sequential(branch))
    check_switched_pipelines([hook], nn.Identity())


def test_keys_of_loaders_exist():
    check_loader(object(), 'val_dataloader')
    check_loader(
        dict(batch_size=1, dataset=dict(), sampler=dict(), num_batch_per_epoch=1), 'val_dataloader'
    )
    with pytest.raises(LaunchError, match="train_dataloader .*'batchsize'.* mean 'batch_size'"):
        check_loader(dict(batchsize=2), 'train_dataloader')


def test_the_optimizer_exists():
    with pytest.raises(LaunchError, match="optimizer.type='AdmW' .* did you mean 'AdamW'"):
        check_optimizer(dict(optimizer=dict(type='AdmW')))
    with pytest.raises(LaunchError, match='not registered as optimizer.$'):
        check_optimizer(dict(optimizer=dict(type='Qwertyuiop')))
    for kind in ('SGD', SGD, 'mmengine.Adam'):
        check_optimizer(dict(type='AmpOptimWrapper', optimizer=dict(type=kind)))
    for other in (None, object(), dict(a=dict(), constructor='Own')):
        check_optimizer(other)


@pytest.mark.parametrize(
    ('save_best', 'evaluator', 'message'),
    [
        ('bbox_mAP', COCO, "'bbox_mAP' .* begin with coco/: did you mean 'coco/bbox_mAP'"),
        ('coco/bbox_mAP50', COCO, "did you mean 'coco/bbox_mAP_50'"),
        ('coco/segm_mAP', COCO, 'save_best'),
        (['pascal_voc/AP50', 'mAP'], dict(type='VOCMetric'), "did you mean 'pascal_voc/mAP'"),
        ('bbox_mAP', [COCO, dict(type='LabelAccuracy')], "did you mean 'coco/bbox_mAP'"),
        ('coco/bbox_mAP', dict(COCO, prefix='mine'), "did you mean 'mine/bbox_mAP'"),
        ('harmonic_mAP', dict(type='BaseNovelCocoMetric'), "mean 'coco/harmonic_mAP'"),
    ],
)
def test_best_checkpoint_is_judged_by_a_metric_that_there_is(save_best, evaluator, message):
    hook = CheckpointHook(save_best=save_best, rule='greater')
    with pytest.raises(LaunchError, match=message):
        check_save_best([hook], evaluator)


@pytest.mark.parametrize(
    ('save_best', 'evaluator'),
    [
        (None, COCO),
        ('auto', COCO),
        ('coco/bbox_mAP_75', COCO),
        ('coco/segm_mAP', dict(COCO, metric=['bbox', 'segm'])),
        ('coco/cat_precision', dict(COCO, classwise=True)),
        ('coco/AR@100', dict(COCO, metric='proposal_fast')),
        ('coco/harmonic_mAP', dict(type='BaseNovelCocoMetric')),
        ('accuracy/top1', dict(metrics=[COCO, dict(type='LabelAccuracy')])),
        ('a/coco/bbox_mAP', dict(type='MultiDatasetsEvaluator', metrics=[COCO, COCO])),
        ('anything', dict(type='Unknown')),
        ('anything', [COCO, object()]),
        ('anything', None),
    ],
)
def test_best_checkpoint_passes(save_best, evaluator):
    check_save_best([CheckpointHook(save_best=save_best, rule='greater')], evaluator)
