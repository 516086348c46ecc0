"""Ultralytics' YOLOv8: the names here, parts, refusals, and files."""

import os
import sys
import types

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import load_checkpoint
from oracle.yolov8_keys import shapes

from mmdet_contrast.converters import convert_ultralytics_state_dict, map_ultralytics_state_dict
from mmdet_contrast.converters.ultralytics import (
    convert_ultralytics_checkpoint,
    read_ultralytics_checkpoint,
)
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.safe_loading import trust_checkpoints

# One key of every kind, written down by hand.
EXPECTED = {
    '0.conv.weight': 'backbone.stem.conv.weight',
    '1.bn.weight': 'backbone.stage1.0.bn.weight',
    '2.cv1.conv.weight': 'backbone.stage1.1.in_conv.conv.weight',
    '4.m.1.cv2.bn.running_var': 'backbone.stage2.1.blocks.1.conv2.bn.running_var',
    '6.cv2.bn.num_batches_tracked': 'backbone.stage3.1.out_conv.bn.num_batches_tracked',
    '7.conv.weight': 'backbone.stage4.0.conv.weight',
    '8.m.0.cv1.conv.weight': 'backbone.stage4.1.blocks.0.conv1.conv.weight',
    '9.cv1.conv.weight': 'backbone.stage4.2.conv1.conv.weight',
    '9.cv2.bn.bias': 'backbone.stage4.2.conv2.bn.bias',
    '12.cv1.conv.weight': 'neck.top_down_blocks.0.in_conv.conv.weight',
    '15.m.0.cv2.conv.weight': 'neck.top_down_blocks.1.blocks.0.conv2.conv.weight',
    '16.conv.weight': 'neck.downsamples.0.conv.weight',
    '18.cv2.conv.weight': 'neck.bottom_up_blocks.0.out_conv.conv.weight',
    '19.bn.bias': 'neck.downsamples.1.bn.bias',
    '21.cv1.bn.bias': 'neck.bottom_up_blocks.1.in_conv.bn.bias',
    '22.cv2.0.0.conv.weight': 'bbox_head.head_module.reg_convs.0.0.conv.weight',
    '22.cv2.2.2.bias': 'bbox_head.head_module.reg_convs.2.2.bias',
    '22.cv3.1.1.bn.weight': 'bbox_head.head_module.cls_convs.1.1.bn.weight',
    '22.cv3.1.2.weight': 'bbox_head.head_module.cls_convs.1.2.weight',
}


def weights(size='n', num_classes=80, prefix='model.', keep=lambda key: True):
    """Tensors of the right shapes that take no memory, the number of the key as their value."""
    return {
        key: torch.full((1,) * len(shape), float(i)).expand(shape)
        for i, (key, shape) in enumerate(shapes(size, num_classes, prefix).items())
        if keep(key)
    }


def detector(scale='n', num_classes=80):
    return MODELS.build(
        dict(
            type='YOLOv8Detector',
            scale=scale,
            backbone=dict(type='YOLOv8CSPDarknet'),
            neck=dict(type='YOLOv8PAFPN'),
            bbox_head=dict(type='YOLOv8Head', num_classes=num_classes),
        )
    )


@pytest.mark.parametrize('prefix', ['', 'model.', 'model.model.', 'module.model.', 'module.'])
def test_names_and_values(prefix):
    given = weights(prefix=prefix)
    converted = convert_ultralytics_state_dict(given)
    for theirs, ours in EXPECTED.items():
        assert converted[ours] is given[prefix + theirs]
    assert len(converted) == len(given) - 1  # all but the fixed bins


@pytest.mark.parametrize('size', ['n', 's'])
def test_loads_strictly(size):
    model = detector(size)
    converted = convert_ultralytics_state_dict(weights(size))
    model.load_state_dict(converted)
    ours = model.state_dict()
    assert set(ours) == set(converted)
    assert all(torch.equal(ours[key], value.to(ours[key])) for key, value in converted.items())


def test_the_backbone_alone():
    given = weights()
    converted, names = map_ultralytics_state_dict(given, 'backbone')
    assert set(converted) == {k for k in detector().state_dict() if k.startswith('backbone.')}
    assert list(names) == list(given) and set(names.values()) == {*converted, None}


@pytest.mark.parametrize('size, left', [('n', 'cls_convs.'), ('s', 'cls_convs.%d.2.')])
def test_mmengine_leaves_out_the_class_head_of_another_number_of_classes(size, left, tmp_path):
    # of n all of it: 80 channels for 80 classes, 64 for 3
    model = detector(size, num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    converted = convert_ultralytics_state_dict(weights(size))
    torch.save(dict(state_dict=converted), tmp_path / 'whole.pth')
    load_checkpoint(model, str(tmp_path / 'whole.pth'))
    for key, value in model.state_dict().items():
        kept = any(left.replace('%d', str(i)) in key for i in range(3))
        if 'num_batches' not in key:
            assert torch.equal(value, before[key] if kept else converted[key]), key


@pytest.mark.parametrize(
    'key', ['model.22.cv4.0.0.conv.weight', 'model.23.cv2.0.0.bn.bias', 'model.0.conv.bias']
)
def test_foreign_keys_are_refused(key):
    with pytest.raises(LaunchError, match=f"1 of its 356 keys are unknown, such as '{key}'"):
        convert_ultralytics_state_dict({**weights(), key: 0})


@pytest.mark.parametrize('layer, name', [(22, 'bbox_head'), (12, 'top_down_blocks'), (3, 'stage2')])
def test_absent_layers_are_refused(layer, name):
    given = weights(keep=lambda key: key.split('.')[1] != str(layer))
    with pytest.raises(LaunchError, match=rf'has no key model\.{layer}\.\* \(.*{name}.*give a'):
        convert_ultralytics_state_dict(given)


# --- files


def full_weights():
    return {key: value.clone() % 100 for key, value in weights().items()}


@pytest.mark.parametrize('key', [None, 'state_dict', 'model'])
def test_plain_files(tmp_path, key):
    given = {key: value.half() for key, value in full_weights().items()}
    given['model.0.bn.num_batches_tracked'] = torch.tensor(7)
    torch.save(given if key is None else {key: given, 'epoch': 3}, tmp_path / 'in.pt')
    read = read_ultralytics_checkpoint(str(tmp_path / 'in.pt'))
    assert list(read) == list(given)
    assert read['model.9.cv1.bn.bias'].dtype == torch.float32
    assert read['model.0.bn.num_batches_tracked'].dtype == torch.int64
    assert all(torch.equal(read[k], given[k].to(read[k].dtype)) for k in given)


def test_convert_writes_a_checkpoint(tmp_path):
    source, target = str(tmp_path / 'in.pt'), str(tmp_path / 'out.pth')
    given = full_weights()
    torch.save(given, source)
    names = convert_ultralytics_checkpoint(source, target, 'backbone')
    written = torch.load(target, weights_only=True)
    assert written['meta'] == dict(converted_from='in.pt', parts='backbone')
    assert set(written['state_dict']) == {*names.values()} - {None}
    stem = written['state_dict']['backbone.stem.conv.weight']
    assert torch.equal(stem, given['model.0.conv.weight'])


@pytest.fixture
def pickled_model(tmp_path, monkeypatch):
    """A file as Ultralytics writes it, pickled from a stand-in for its package."""
    package, tasks = types.ModuleType('ultralytics'), types.ModuleType('ultralytics.tasks')

    class DetectionModel(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.register_buffer('w', torch.full((2,), value).half())

    DetectionModel.__module__, DetectionModel.__qualname__ = 'ultralytics.tasks', 'DetectionModel'
    tasks.DetectionModel, package.tasks = DetectionModel, tasks
    monkeypatch.setitem(sys.modules, 'ultralytics', package)
    monkeypatch.setitem(sys.modules, 'ultralytics.tasks', tasks)
    path = str(tmp_path / 'yolov8n.pt')
    torch.save(dict(model=DetectionModel(1.0), ema=DetectionModel(2.0), epoch=1), path)
    torch.save(dict(model=DetectionModel(1.0), ema=None), str(tmp_path / 'no_ema.pt'))
    return path


def test_pickled_model_with_its_package(pickled_model):
    with pytest.raises(LaunchError, match='pickled model of Ultralytics .* --trust-checkpoint'):
        read_ultralytics_checkpoint(pickled_model)
    no_ema = os.path.join(os.path.dirname(pickled_model), 'no_ema.pt')
    with trust_checkpoints():
        read = read_ultralytics_checkpoint(pickled_model)
        assert read_ultralytics_checkpoint(no_ema)['w'].tolist() == [1.0, 1.0]
    assert read['w'].tolist() == [2.0, 2.0] and read['w'].dtype == torch.float32


def test_pickled_model_without_its_package(pickled_model, monkeypatch):
    monkeypatch.delitem(sys.modules, 'ultralytics.tasks')
    # also where the package is installed
    monkeypatch.setitem(sys.modules, 'ultralytics', None)
    missing = r"'ultralytics(\.tasks)?' is not installed: .*state_dict\(\)"
    with trust_checkpoints(), pytest.raises(LaunchError, match=missing):
        read_ultralytics_checkpoint(pickled_model)
