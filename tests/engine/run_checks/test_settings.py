"""The best checkpoint of a config."""

import pytest
from mmengine.hooks import CheckpointHook

from mmdet_contrast.engine.run_checks.settings import check_save_best
from mmdet_contrast.utils.config import LaunchError

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
