"""Files that are loaded, refused, or no checkpoints, whoever loads them."""

import codecs
import collections
import datetime
import functools
import io
import os
import pickle
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.model import BaseModule
from mmengine.optim import scheduler
from mmengine.runner import CheckpointLoader

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.safe_loading import load_from_local, trust_checkpoints


class Made:
    """What is pickled as a call of a function, with a state that is set afterwards."""

    def __init__(self, function, args, *state):
        self.reduced = (function, tuple(args), *state)

    def __reduce__(self):
        return self.reduced


def save(content, folder, **kwargs):
    path = str(folder / 'x.pth')
    torch.save(content, path, **kwargs)
    return path


# ----------------------------------------------------------------------- what MMEngine writes loads


def test_every_kind_of_value_of_a_training_checkpoint(tmp_path):
    hub = MessageHub('test_safe_loading')
    for value in (1.0, 2.0):
        hub.update_scalar('train/loss', value)
    hub.update_info('best_score', np.float32(0.5))
    model = torch.nn.BatchNorm2d(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.weight.sum().backward()
    optimizer.step()
    schedulers = [
        scheduler.OneCycleLR(optimizer, eta_max=0.1, total_steps=9),
        scheduler.MultiStepLR(optimizer, milestones=[1, 2]),
        scheduler.ReduceOnPlateauLR(optimizer, monitor='x'),
        scheduler.CosineRestartLR(optimizer, periods=[1], restart_weights=[1], eta_min=0),
    ]
    plain = dict(
        scalar=np.float64(3),
        text=np.str_('ab'),
        dtype=np.dtype('float32'),
        torch_dtype=torch.bfloat16,
        bytes=(b'', b'\xff', bytearray(b'a')),
        sets=({1}, frozenset([2]), 1j),
        size=torch.Size([1, 2]),
        device=torch.device('cpu'),
        time=datetime.datetime(2024, 1, 2),
        counts=(collections.Counter('aa'), collections.deque([1], 3)),
        config=ConfigDict(a=dict(b=(1,))),
    )
    arrays = dict(
        floats=np.arange(6.0).reshape(2, 3),
        columns=np.asfortranarray(np.arange(6).reshape(2, 3)),
        flags=np.array([True, False]),
        names=np.array(['a', 'bcd']),
        nothing=np.zeros((2, 0)),
    )
    tensors = dict(
        part=torch.arange(6).view(2, 3)[:, 1],
        half=torch.ones(2, dtype=torch.bfloat16),
        weight=torch.nn.Parameter(torch.ones(2)),
    )
    content = dict(
        state_dict=model.state_dict(),
        message_hub=hub.state_dict(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[item.state_dict() for item in schedulers],
        meta=dict(plain=plain, arrays=arrays),
        tensors=tensors,
    )
    for zipped in (True, False):
        path = save(content, tmp_path, _use_new_zipfile_serialization=zipped)
        got = CheckpointLoader.load_checkpoint(path)
        assert got['meta']['plain'] == plain
        assert type(got['meta']['plain']['config']) is ConfigDict
        for name, array in arrays.items():
            np.testing.assert_array_equal(got['meta']['arrays'][name], array)
            assert got['meta']['arrays'][name].dtype == array.dtype
        for name, tensor in tensors.items():
            assert torch.equal(got['tensors'][name], tensor)
        assert got['state_dict']._metadata == model.state_dict()._metadata
        torch.optim.AdamW(model.parameters()).load_state_dict(got['optimizer'])
        for item, state in zip(schedulers, got['param_schedulers']):
            assert item.state_dict() == state
        other = MessageHub('test_safe_loading_other')
        other.load_state_dict(got['message_hub'])
        history = other.get_scalar('train/loss')
        assert (history.mean(), history.statistics('min')) == (1.5, 1.0)
        assert other.get_info('best_score') == np.float32(0.5)


def test_home_is_expanded_and_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    save(dict(a=1), tmp_path)
    assert load_from_local('~/x.pth') == dict(a=1)
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*gone.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'gone.pth'))


def test_only_local_files_are_loaded_so():
    for url, name in (('https://host/x.pth', 'load_from_http'), ('x.pth', 'load_from_local')):
        assert CheckpointLoader._get_checkpoint_loader(url).__name__ == name


# -------------------------------------------------------------------------------- what runs code


def nested_pickle():
    stream = io.BytesIO()
    torch.save(Made(os.system, ['touch ran']), stream)
    return stream.getvalue()


MAKE_ARRAY = np.zeros(0).__reduce__()[0]
NUMBERS = (np.dtype, ('f8', False, True))
ATTACKS = {
    'posix.system': Made(os.system, ['touch ran']),
    'builtins.eval': Made(eval, ["open('ran', 'w')"]),
    'builtins.exec': Made(exec, ["open('ran', 'w')"]),
    'builtins.getattr': Made(getattr, [Made(getattr, [HistoryBuffer, 'mean']), '__globals__']),
    'builtins.object': Made(getattr, [object, '__subclasses__']),
    'torch.storage._load_from_bytes': Made(torch.storage._load_from_bytes, [nested_pickle()]),
    'torch.serialization.load': Made(torch.load, ['nested.pth']),
    'functools.partial': Made(functools.partial, [os.system, 'touch ran']),
    'collections.namedtuple': Made(collections.namedtuple, ['a', 'b']),
    'torch.nn.modules.linear.Linear': torch.nn.Linear(1, 1),
    'a subclass of numpy.ndarray': Made(MAKE_ARRAY, [collections.OrderedDict, (0,), b'b']),
    r"numpy.dtype\('O'\)": Made(np.dtype, ['O']),
    r"numpy.dtype\('f8,O'\)": Made(np.dtype, ['f8,O']),
    r'numpy.dtype\(.*999': Made(*NUMBERS, (3, '<', None, None, None, 999, 8, 0)),
    r"numpy.dtype\(.*'>'": Made(*NUMBERS, (3, '>', None, None, None, -1, -1, 0)),
    'the codec': Made(codecs.encode, ['ab', 'rot13']),
}


@pytest.mark.parametrize('needed', ATTACKS)
@pytest.mark.parametrize('zipped', [True, False])
def test_what_would_run_code_is_refused(needed, zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = dict(state_dict=dict(weight=torch.ones(1)), meta=ATTACKS[needed])
    path = save(content, tmp_path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(LaunchError, match=f'x.pth.* needs {needed}.*--trust-checkpoint'):
        load_from_local(path)
    assert os.listdir() == ['x.pth']


def test_classes_and_functions_do_not_change(tmp_path):
    # the class, and as its state (None, {'mean': 1}), which sets attributes
    change = b'cmmengine.logging.history_buffer\nHistoryBuffer\n(N(dVmean\nI1\nstb.'
    path, mean = tmp_path / 'x.pth', HistoryBuffer.mean
    begin = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {})
    path.write_bytes(b''.join(pickle.dumps(x, 2) for x in begin) + change + pickle.dumps([], 2))
    with pytest.raises(LaunchError, match='needs the state of a type'):
        load_from_local(path)
    path = save(dict(h=HistoryBuffer([1.0], [1])), tmp_path)
    HistoryBuffer([1.0], [1]).register_statistics(len)
    try:
        given = save(dict(h=HistoryBuffer([1.0], [1])), tmp_path)
        with pytest.raises(LaunchError, match='needs builtins.len'):
            load_from_local(given)
    finally:
        HistoryBuffer._statistics_methods.pop('len')
    assert HistoryBuffer.mean is mean


def test_numbers_do_not_become_addresses(tmp_path):
    flagged = Made(*NUMBERS, (3, '<', None, None, None, -1, -1, 63))
    for zipped in (True, False):
        path = save(dict(a=flagged), tmp_path, _use_new_zipfile_serialization=zipped)
        assert load_from_local(path)['a'].flags == np.dtype('f8').flags


def test_the_end_of_another_switch_changes_nothing(tmp_path, monkeypatch):
    """That of a run that failed ends when it is collected, be it in the middle of the next one."""
    monkeypatch.chdir(tmp_path)
    path = save(dict(a=ATTACKS['posix.system']), tmp_path)
    other = trust_checkpoints(False)
    other.__enter__()
    with trust_checkpoints():
        other.__exit__(None, None, None)
        load_from_local(path)
    with pytest.raises(LaunchError, match='needs posix.system'):
        load_from_local(path)


def test_trust_loads_it_and_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(dict(a=ATTACKS['posix.system']), tmp_path)
    for more in (True, False):
        with trust_checkpoints(), trust_checkpoints(more):
            CheckpointLoader.load_checkpoint(path)
        (tmp_path / 'ran').unlink()
    with pytest.raises(LaunchError, match='needs'), trust_checkpoints(False):
        load_from_local(path)
    with pytest.raises(KeyError), trust_checkpoints():
        raise KeyError
    with pytest.raises(LaunchError, match='needs'):
        load_from_local(path)
    assert not (tmp_path / 'ran').exists()


def test_a_model_of_ultralytics_is_to_be_converted(tmp_path, monkeypatch):
    tasks = types.ModuleType('ultralytics.nn.tasks')
    tasks.DetectionModel = type('DetectionModel', (torch.nn.Linear,), {})
    tasks.DetectionModel.__module__ = tasks.__name__
    for name in ('ultralytics', 'ultralytics.nn', 'ultralytics.nn.tasks'):
        monkeypatch.setitem(sys.modules, name, tasks)
    path = save(dict(epoch=-1, model=tasks.DetectionModel(1, 1)), tmp_path)
    command = f'python tools/model_converters/ultralytics_to_mmdet.py {path} converted.pth'
    with pytest.raises(LaunchError, match=f'ultralytics.nn.tasks.*{command} --trust-checkpoint'):
        load_from_local(path)


# -------------------------------------------------------------------------------- who loads files


class Part(BaseModule):
    def __init__(self, checkpoint):
        super().__init__(dict(type='Pretrained', checkpoint=checkpoint))
        self.layer = torch.nn.Linear(1, 1)


def test_all_of_mmengine_loads_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(dict(state_dict={}, meta=ATTACKS['posix.system']), tmp_path)
    for load in (lambda: Part(path).init_weights(), lambda: CheckpointLoader.load_checkpoint(path)):
        with pytest.raises(LaunchError, match='needs posix.system'):
            load()
    assert os.listdir() == ['x.pth']


def test_importing_the_package_is_enough(tmp_path):
    save(dict(state_dict={}, meta=ATTACKS['posix.system']), tmp_path)
    code = 'import mmdet_contrast, torch; from mmengine.runner import CheckpointLoader as c; '
    code += "c.load_checkpoint('x.pth')"
    run = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert 'LaunchError' in run.stderr and os.listdir(tmp_path) == ['x.pth']


# --------------------------------------------------------------------------------- no checkpoints


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('share', [0.2, 0.5, 0.9, 0.99])
def test_files_that_are_cut_off(zipped, share, tmp_path):
    content = dict(state_dict=dict(a=torch.ones(999), b=torch.ones(99)))
    path = save(content, tmp_path, _use_new_zipfile_serialization=zipped)
    cut(tmp_path / 'x.pth', share)
    with pytest.raises(LaunchError, match='x.pth.* cannot be read as a checkpoint'):
        load_from_local(path)


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'<!DOCTYPE html><html>',
        b'\x89PNG\r\n\x1a\n',
        b'GIF89a',
        b'version https://git-lfs.github.com/spec/v1\n',
        pickle.dumps([1, 2]),
        bytes(range(256)),
        b'\x95' + b'\xff' * 20,
        b'e',
    ],
)
def test_other_files(data, tmp_path):
    (tmp_path / 'x.pth').write_bytes(data)
    for trust in (False, True):
        with trust_checkpoints(trust), pytest.raises(LaunchError, match='x.pth.*cannot be read'):
            load_from_local(tmp_path / 'x.pth')


def test_other_content_and_archives(tmp_path):
    with pytest.raises(LaunchError, match='x.pth.* holds a list'):
        load_from_local(save([torch.ones(1)], tmp_path))
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / 'script.pt'))
    with pytest.raises(LaunchError, match='script.pt.* holds a RecursiveScriptModule'):
        load_from_local(tmp_path / 'script.pt')
    with zipfile.ZipFile(tmp_path / 'other.zip', 'w') as archive:
        archive.writestr('folder/readme.txt', 'x')
    with pytest.raises(LaunchError, match='other.zip.* cannot be read as a checkpoint'):
        load_from_local(tmp_path / 'other.zip')
