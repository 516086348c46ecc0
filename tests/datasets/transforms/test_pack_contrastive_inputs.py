import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_contrast.datasets.transforms import ContrastiveView, PackContrastiveInputs


def make_results(channels=3, ignored=(False, False, False)):
    boxes = torch.tensor([[10.0, 20, 50, 60], [0, 0, 3, 3], [60, 40, 90, 80]])
    shape = (80, 100) if channels is None else (80, 100, channels)
    return dict(
        img=np.random.RandomState(0).randint(0, 255, shape).astype(np.uint8),
        img_id=7,
        img_shape=(80, 100),
        gt_bboxes=HorizontalBoxes(boxes),
        gt_bboxes_labels=np.array([2, 0, 1]),
        gt_ignore_flags=np.array(ignored),
    )


def test_shapes_and_fields():
    results = ContrastiveView()(make_results())
    packed = PackContrastiveInputs()(results)
    inputs = packed['inputs']
    assert inputs.shape == (2, 3, 80, 100) and inputs.dtype == torch.uint8
    assert np.array_equal(inputs[0].permute(1, 2, 0).numpy(), results['img'])
    assert np.array_equal(inputs[1].permute(1, 2, 0).numpy(), results['img_view'])
    instances = packed['data_samples'].gt_instances
    assert instances.view_valid.tolist() == [True, False, True]
    assert instances.labels.tolist() == [2, 0, 1]
    assert 'view_bboxes' not in instances
    assert packed['data_samples'].img_id == 7


def test_ignored_boxes_leave_marks_and_boxes_aligned():
    results = make_results(ignored=(True, False, False))
    view = ContrastiveView(transforms=[dict(type='RandomFlip', prob=1.0)])
    packed = PackContrastiveInputs()(view(results))
    instances = packed['data_samples'].gt_instances
    assert instances.labels.tolist() == [0, 1]
    assert instances.view_valid.tolist() == [False, True]
    assert instances.view_bboxes.tensor.tolist() == [[97, 0, 100, 3], [10, 40, 40, 80]]
    ignored = packed['data_samples'].ignored_instances
    assert ignored.bboxes.tensor.tolist() == [[10, 20, 50, 60]]
    assert ignored.view_bboxes.tensor.tolist() == [[50, 20, 90, 60]]


def test_refuses_results_without_a_fitting_view():
    with pytest.raises(KeyError, match='img_view'):
        PackContrastiveInputs()(make_results())
    results = ContrastiveView()(make_results())
    for name in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags'):
        results[name] = results[name][:2]
    with pytest.raises(ValueError, match='moved or dropped'):
        PackContrastiveInputs()(results)


def test_refuses_boxes_that_moved_after_the_view_was_made():
    flip = TRANSFORMS.build(dict(type='RandomFlip', prob=1.0))
    results = flip(ContrastiveView()(make_results()))
    with pytest.raises(ValueError, match='moved or dropped'):
        PackContrastiveInputs()(results)
    PackContrastiveInputs()(ContrastiveView()(flip(make_results())))
    # what leaves the boxes where they are may follow
    colours = TRANSFORMS.build(dict(type='PhotoMetricDistortion'))
    PackContrastiveInputs()(colours(ContrastiveView()(make_results())))
    empty = make_results()
    empty['gt_bboxes'] = empty['gt_bboxes'][:0]
    for name in ('gt_bboxes_labels', 'gt_ignore_flags'):
        empty[name] = empty[name][:0]
    PackContrastiveInputs()(flip(ContrastiveView()(empty)))
