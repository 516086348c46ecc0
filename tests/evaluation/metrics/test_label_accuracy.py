"""Accuracy against counting."""

import pytest
import torch

from mmdet_contrast.evaluation.metrics import LabelAccuracy


def sample(scores, labels):
    scores = torch.tensor(scores).reshape(len(labels), -1 if labels else 3)
    return dict(class_scores=scores, class_labels=torch.tensor(labels).long())


def evaluate(*samples, **kwargs):
    metric = LabelAccuracy(**kwargs)
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_by_hand():
    values = evaluate(
        sample([0.7, 0.2, 0.1], [0]),
        # two boxes of one image: right, second
        sample([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4]], [1, 2]),
        sample([], []),
        sample([0.8, 0.1, 0.1], [0]),
        topk=(1, 2, 5),
    )
    assert values['accuracy/top1'] == 0.75
    assert values['accuracy/top2'] == values['accuracy/top5'] == 1
    assert values['accuracy/class_mean'] == pytest.approx(2 / 3)


def test_constant_scores_are_no_success():
    assert evaluate(sample([[0.5, 0.5]] * 3, [0, 1, 0]), topk=(1,))['accuracy/top1'] == 0


def test_scores_that_are_not_finite_are_no_success():
    values = evaluate(sample([[float('nan')] * 3] * 2, [0, 1]), topk=(1, 2))
    assert values == {'accuracy/top1': 0, 'accuracy/top2': 0, 'accuracy/class_mean': 0}


def test_nothing_to_count_is_no_figure():
    assert evaluate(sample([], [])) == {}
