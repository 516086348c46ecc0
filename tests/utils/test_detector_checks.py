"""What a trained detector is refused for when it is used."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmdet_contrast.utils.detector_checks import check_device, check_is_dict, name_classes
from mmdet_contrast.utils.launch_checks import LaunchError


def test_device():
    check_device('cpu')
    with pytest.raises(LaunchError, match="device 'gpu' cannot be used: .*[^.][.]$"):
        check_device('gpu')


def test_a_checkpoint_is_a_dict():
    check_is_dict({})
    with pytest.raises(LaunchError, match='holds a Tensor, not a dict of weights'):
        check_is_dict(torch.zeros(1))


@pytest.fixture
def cfg():
    data = dict(type='CocoDataset', ann_file='not_read.json', metainfo=dict(classes=('c', 'd')))
    return Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=data)))


def head(number):
    return SimpleNamespace(bbox_head=SimpleNamespace(num_classes=number))


@pytest.mark.parametrize(
    'meta, names',
    [
        (dict(dataset_meta=dict(CLASSES=('a', 'b'), palette=[1])), ['a', 'b']),
        (dict(CLASSES=('a', 'b')), ['a', 'b']),
        ({}, ['c', 'd']),
        (None, ['c', 'd']),
    ],
)
def test_names(cfg, meta, names):
    for model in (
        head(2),
        SimpleNamespace(roi_head=head(2)),
        SimpleNamespace(student=head(2)),
    ):
        found = name_classes(model, dict(meta=meta), cfg)
        assert found['classes'] == names
        assert found.get('palette') == ([1] if 'dataset_meta' in (meta or {}) else None)


def test_names_that_do_not_fit_are_refused(cfg):
    with pytest.raises(LaunchError, match=r"the config's test data names 2 .*\(c, d …\).* has 3"):
        name_classes(head(3), {}, cfg)
    with pytest.raises(LaunchError, match='the checkpoint names 1 classes'):
        name_classes(head(3), dict(meta=dict(CLASSES='a')), cfg)
