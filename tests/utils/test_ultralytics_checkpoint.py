"""Files of Ultralytics weights: plain ones, pickled models with and without their package."""

import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch

from mmdet_contrast.utils.ultralytics_checkpoint import (
    convert_ultralytics_checkpoint,
    read_ultralytics_checkpoint,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'oracle'))

from yolov8_keys import shapes  # noqa: E402


def weights(dtype=torch.float32):
    return {
        key: torch.full((1,) * len(shape), float(i % 100), dtype=dtype).expand(shape).clone()
        for i, (key, shape) in enumerate(shapes().items())
    }


@pytest.mark.parametrize('key', [None, 'state_dict', 'model'])
def test_plain_files(tmp_path, key):
    given = weights(torch.float16)
    given['model.0.bn.num_batches_tracked'] = torch.tensor(7)
    torch.save(given if key is None else {key: given, 'epoch': 3}, tmp_path / 'in.pt')
    read = read_ultralytics_checkpoint(str(tmp_path / 'in.pt'))
    assert list(read) == list(given)
    assert read['model.9.cv1.bn.bias'].dtype == torch.float32
    assert read['model.0.bn.num_batches_tracked'].dtype == torch.int64
    assert all(torch.equal(read[k], given[k].to(read[k].dtype)) for k in given)


def test_convert_writes_a_checkpoint(tmp_path):
    source, target = str(tmp_path / 'in.pt'), str(tmp_path / 'out.pth')
    given = weights()
    torch.save(given, source)
    report = convert_ultralytics_checkpoint(source, target, 'backbone')
    written = torch.load(target, weights_only=True)
    assert written['meta'] == dict(converted_from='in.pt', parts='backbone', size='n')
    assert set(written['state_dict']) == set(report.mapped.values())
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
    read = read_ultralytics_checkpoint(pickled_model)
    assert read['w'].tolist() == [2.0, 2.0] and read['w'].dtype == torch.float32
    no_ema = os.path.join(os.path.dirname(pickled_model), 'no_ema.pt')
    assert read_ultralytics_checkpoint(no_ema)['w'].tolist() == [1.0, 1.0]


def test_pickled_model_without_its_package(pickled_model, monkeypatch):
    monkeypatch.delitem(sys.modules, 'ultralytics.tasks')
    monkeypatch.setitem(sys.modules, 'ultralytics', None)
    with pytest.raises(ImportError) as error:
        read_ultralytics_checkpoint(pickled_model)
    message = str(error.value)
    assert 'a full Ultralytics checkpoint' in message and 'state_dict()' in message
    assert '\n' not in message


def test_pickle_of_another_package(tmp_path, monkeypatch):
    foreign = types.ModuleType('some_models')

    class Net(torch.nn.Module):
        pass

    Net.__module__, Net.__qualname__ = 'some_models', 'Net'
    foreign.Net = Net
    monkeypatch.setitem(sys.modules, 'some_models', foreign)
    torch.save(dict(model=Net()), tmp_path / 'in.pt')
    monkeypatch.delitem(sys.modules, 'some_models')
    with pytest.raises(ImportError, match='pickled object of another package.*some_models'):
        read_ultralytics_checkpoint(str(tmp_path / 'in.pt'))


def test_files_without_weights(tmp_path):
    torch.save(dict(epoch=3), tmp_path / 'in.pt')
    with pytest.raises(ValueError, match=r'holds no weights \(keys epoch\): give a plain'):
        read_ultralytics_checkpoint(str(tmp_path / 'in.pt'))
    torch.save([1, 2], tmp_path / 'list.pt')
    with pytest.raises(ValueError, match=r'holds no weights \(no dict\)'):
        read_ultralytics_checkpoint(str(tmp_path / 'list.pt'))
    (tmp_path / 'pickle.pt').write_bytes(pickle.dumps('x')[:-1])
    with pytest.raises(ValueError, match='not a checkpoint that torch can read'):
        read_ultralytics_checkpoint(str(tmp_path / 'pickle.pt'))
