"""Loaders, optimizers, schedulers and the best checkpoint of a config."""

import pytest
from mmengine.hooks import CheckpointHook
from torch.optim import SGD

from mmdet_contrast.engine.run_checks.settings import (
    check_loader,
    check_optimization,
    check_save_best,
)
from mmdet_contrast.utils.config import LaunchError


def test_keys_of_loaders_exist():
    check_loader(None, 'val_dataloader')
    check_loader(
        dict(
            batch_size=1,
            num_workers=0,
            persistent_workers=False,
            drop_last=True,
            prefetch_factor=2,
            dataset=dict(),
            sampler=dict(),
            batch_sampler=dict(),
            collate_fn=dict(),
            worker_init_fn=dict(),
            num_batch_per_epoch=1,
            disable_subprocess_warning=True,
        ),
        'train_dataloader',
    )
    with pytest.raises(LaunchError, match="train_dataloader .*'batchsize'.* mean 'batch_size'"):
        check_loader(dict(batchsize=2), 'train_dataloader')


@pytest.mark.parametrize(
    ('optim_wrapper', 'schedulers', 'message'),
    [
        (dict(optimizer=dict(type='AdmW')), None, "optimizer.type='AdmW' .* mean 'AdamW'"),
        (dict(optimizer=dict(type='sgd')), None, "optimizer.type='sgd' .* mean 'SGD'"),
        (dict(type='OptimWraper'), None, "optim_wrapper.type='OptimWraper' .* 'OptimWrapper'"),
        (None, [dict(type='LinearLr')], "param_scheduler.type='LinearLr' .* mean 'LinearLR'"),
        (None, dict(a=[dict(type='StepLRR')]), "param_scheduler.type='StepLRR' .* 'StepLR'"),
        (dict(optimizer=dict(type='Qwertyuiop')), None, 'not registered as optimizer.$'),
    ],
)
def test_optimizers_and_schedulers_exist(optim_wrapper, schedulers, message):
    with pytest.raises(LaunchError, match=message):
        check_optimization(optim_wrapper, schedulers)


def test_good_optimization_passes():
    scheduler = dict(type='CosineAnnealingLR')
    for schedulers in (None, scheduler, [scheduler], dict(a=scheduler, b=[scheduler])):
        check_optimization(dict(type='AmpOptimWrapper', optimizer=dict(type='SGD')), schedulers)
    check_optimization(dict(optimizer=dict(type=SGD)), None)
    check_optimization(dict(a=dict(), constructor='Own'), [object()])
    check_optimization(object(), None)


COCO = dict(type='CocoMetric', metric='bbox')


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
        ('anything', dict(type='Unknown')),
        ('anything', [COCO, object()]),
        ('anything', None),
    ],
)
def test_best_checkpoint_passes(save_best, evaluator):
    check_save_best([CheckpointHook(save_best=save_best, rule='greater')], evaluator)
