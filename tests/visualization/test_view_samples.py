"""What is said of the boxes of a training sample."""

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset

from mmdet_contrast.datasets.transforms import ContrastiveView
from mmdet_contrast.visualization._view_samples import (
    find_view,
    left_out_reason,
    view_min_size,
)


@pytest.mark.parametrize(
    'box, min_size, reason',
    [
        ([0, 0, 30, 5], 8, 'too small'),
        ([0, 0, 30, 8], 8, 'covered'),
        ([95, 0, 130, 50], 8, 'too small'),  # clipped to a width of 5
        ([0, 0, 30, 5], None, 'left out'),
    ],
)
def test_reasons(box, min_size, reason):
    assert left_out_reason(np.array(box, float), (100, 100), min_size) == reason


def test_reasons_are_those_of_the_view():
    rng = np.random.default_rng(0)
    view = ContrastiveView(min_size=8, max_overwritten=1.0)
    for _ in range(200):
        corner = rng.uniform(0, 60, 2)
        box = np.concatenate([corner, corner + rng.uniform(6.5, 9.5, 2)])
        results = dict(img=np.zeros((64, 64, 3), np.uint8), gt_bboxes=box[None])
        small = not view(results)['gt_view_valid'][0]
        assert (left_out_reason(box, (64, 64), 8) == 'too small') == small


def test_min_size_is_found_in_wrapped_data_sets():
    inner = dict(type='CocoDataset', pipeline=[dict(type='A'), dict(type='ContrastiveView')])
    assert view_min_size(dict(type='RepeatDataset', dataset=inner)) == 8
    inner['pipeline'][1]['min_size'] = 3
    assert view_min_size(dict(type='ConcatDataset', datasets=[inner])) == 3
    assert view_min_size(dict(type='CocoDataset', pipeline=[])) is None


@pytest.mark.parametrize('kind', [ContrastiveView, 'ContrastiveView', 'mmdet.ContrastiveView'])
def test_the_type_may_be_a_name_or_the_class(kind):
    view = dict(type=kind, min_size=5)
    found = find_view(dict(type=CocoDataset, pipeline=[dict(type=LoadImageFromFile), view]))
    assert found == view
    assert find_view(dict(type=CocoDataset, pipeline=[dict(type=LoadImageFromFile)])) is None
