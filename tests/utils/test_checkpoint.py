"""Checkpoints: what does not fit a model or data, and which classes one names."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmdet_contrast.utils.checkpoint import (
    check_class_order,
    check_weights,
    name_classes,
)
from mmdet_contrast.utils.config import LaunchError


class ToyModel(torch.nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.body = torch.nn.Linear(3, width)
        self.contrast = torch.nn.Linear(width, 2)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in ('weight', 'bias'):  # the name of an older version
            if f'{prefix}trunk.{name}' in state_dict:
                state_dict[f'{prefix}body.{name}'] = state_dict.pop(f'{prefix}trunk.{name}')
        super()._load_from_state_dict(state_dict, prefix, *args)


def load(model, weights, **kwargs):
    check_weights(model, dict(state_dict=weights), **kwargs)


def test_a_checkpoint_must_fill_the_model():
    whole = ToyModel().state_dict()
    load(ToyModel(), whole)
    load(ToyModel(), OrderedDict((f'module.{name}', value) for name, value in whole.items()))
    load(ToyModel(), dict(whole, extra=torch.zeros(1)))
    load(ToyModel(), {n: v for n, v in whole.items() if not n.startswith('contrast.')})
    load(ToyModel(), {n.replace('body', 'trunk'): v for n, v in whole.items()})
    with pytest.raises(LaunchError, match='body.bias is not in it: give a checkpoint of this con'):
        load(ToyModel(), {n: v for n, v in whole.items() if n != 'body.bias'})
    with pytest.raises(LaunchError, match='size mismatch for body.weight.*and 1 more such'):
        load(ToyModel(4), whole)


def test_what_only_training_uses_may_have_another_shape_in_a_test():
    model, other = ToyModel(), ToyModel()
    other.contrast = torch.nn.Linear(2, 5)
    kept = model.contrast.weight.clone()
    load(model, other.state_dict())
    assert torch.equal(model.body.weight, other.body.weight)
    assert torch.equal(model.contrast.weight, kept)
    with pytest.raises(LaunchError, match='size mismatch for contrast.weight'):
        load(ToyModel(), other.state_dict(), training=True)


def test_classes_of_a_checkpoint_in_another_order_are_refused():
    checkpoint = dict(meta=dict(dataset_meta=dict(classes=('cat', 'dog'))))
    older = dict(meta=dict(dataset_meta=dict(CLASSES=['cat', 'dog'])))
    data = {
        names: SimpleNamespace(metainfo=dict(classes=names))
        for names in [('cat', 'dog'), ('dog', 'cat')]
    }
    for given in (checkpoint, older):
        check_class_order(given, data['cat', 'dog'], 'test_dataloader', exact=True)
        with pytest.raises(LaunchError, match=r"test_dataloader has the classes \['dog', 'cat'\]"):
            check_class_order(given, data['dog', 'cat'], 'test_dataloader')
    fewer = SimpleNamespace(metainfo=dict(classes=('dog',)))
    check_class_order(checkpoint, fewer, 'test_dataloader')
    with pytest.raises(LaunchError, match=r"trained with \['cat', 'dog'\]"):
        check_class_order(checkpoint, fewer, 'test_dataloader', exact=True)
    for unnamed in (dict(), dict(meta=None), dict(meta=dict(dataset_meta=None))):
        check_class_order(unnamed, fewer, 'test_dataloader', exact=True)
    check_class_order(checkpoint, None, 'test_dataloader', exact=True)


def test_every_part_of_concatenated_data_is_compared():
    checkpoint = dict(meta=dict(dataset_meta=dict(classes=('cat', 'dog'))))

    def joined(*lists):
        return SimpleNamespace(metainfo=[dict(classes=names) for names in lists])

    check_class_order(checkpoint, joined(('cat', 'dog'), ('bird',)), 'train_dataloader')
    with pytest.raises(LaunchError, match=r"has the classes \['dog', 'cat'\], but the checkpoint"):
        check_class_order(checkpoint, joined(('cat', 'dog'), ('dog', 'cat')), 'train_dataloader')


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
def test_names_of_the_classes(cfg, meta, names):
    for model in (head(2), SimpleNamespace(roi_head=head(2)), SimpleNamespace(student=head(2))):
        found = name_classes(model, dict(meta=meta), cfg)
        assert found['classes'] == names
        assert found.get('palette') == ([1] if 'dataset_meta' in (meta or {}) else None)


def test_as_many_names_as_classes(cfg):
    with pytest.raises(LaunchError, match=r"the config's test data names 2 .*\(c, d …\).* has 3"):
        name_classes(head(3), {}, cfg)
    with pytest.raises(LaunchError, match='the checkpoint names 1 classes'):
        name_classes(head(3), dict(meta=dict(CLASSES='a')), cfg)
