import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from mmdet_contrast import compat


@pytest.mark.parametrize(
    ('version', 'expected'),
    [
        ('1.13.1', False),
        ('2.1.2+cu121', False),
        ('2.5.1', False),
        ('2.6.0', True),
        ('2.13.0+cpu', True),
        ('3.0.0a0', True),
    ],
)
def test_needs_local_loader(version, expected):
    assert compat.needs_local_loader(version) is expected


def test_parse_release_rejects_what_is_no_version():
    with pytest.raises(ValueError, match="'nightly' is not a version"):
        compat.parse_release('nightly')


@pytest.fixture
def schemes():
    saved = dict(CheckpointLoader._schemes)
    yield CheckpointLoader._schemes
    CheckpointLoader._schemes = type(CheckpointLoader._schemes)(saved)


def test_apply_does_nothing_before_torch_2_6(schemes):
    original = object()
    CheckpointLoader._schemes[''] = original
    assert compat.apply('2.5.1') == ()
    assert CheckpointLoader._schemes[''] is original


def test_apply_replaces_the_local_loader_alone_and_twice_is_once(schemes):
    before = {prefix: loader for prefix, loader in schemes.items() if prefix}
    for _ in range(2):
        assert compat.apply('2.6.0') == ('load_from_local',)
        after = dict(CheckpointLoader._schemes)
        assert after.pop('') is compat.load_from_local
        assert after == before
    # Any local path must still be tried last, after the prefixes of the remote schemes.
    assert list(CheckpointLoader._schemes)[-1] == ''
    http = CheckpointLoader._get_checkpoint_loader('https://host/x.pth')
    assert http.__name__ == 'load_from_http'


@pytest.mark.skipif(
    not compat.needs_local_loader(torch.__version__), reason='torch < 2.6 loads objects by default'
)
def test_training_checkpoint_loads_with_its_objects(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    model = torch.nn.Linear(2, 3)
    torch.save(dict(state_dict=model.state_dict(), message_hub=dict(loss=history)), path)
    # The breakage itself: should torch or mmengine mend it, this item can go.
    with pytest.raises(Exception, match='[Ww]eights'):
        torch.load(path)
    checkpoint = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    assert checkpoint['message_hub']['loss'].mean() == 1.5
    other = torch.nn.Linear(2, 3)
    load_checkpoint(other, str(path), map_location='cpu', strict=True)
    assert torch.equal(other.weight, model.weight)


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*gone.pth'):
        compat.load_from_local(str(tmp_path / 'gone.pth'))


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(dict(a=1), tmp_path / 'x.pth')
    assert compat.load_from_local('~/x.pth', map_location='cpu') == dict(a=1)


@pytest.mark.skipif(
    not compat.needs_local_loader(torch.__version__), reason='torch < 2.6 needs no loader'
)
def test_importing_the_package_applies_it():
    assert CheckpointLoader._get_checkpoint_loader('x.pth') is compat.load_from_local


def test_set_device_is_switched_off_without_a_gpu_only(monkeypatch):
    original = torch.cuda.set_device
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with compat.without_cuda_device():
        assert torch.cuda.set_device is original
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with compat.without_cuda_device():
        torch.cuda.set_device(3)
    assert torch.cuda.set_device is original
