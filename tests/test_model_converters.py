"""The model converters as they are called: arguments, reports, files and one-line errors."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from oracle.yolov8_keys import shapes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def _call(tool, *arguments):
        path = str(ROOT / 'tools' / 'model_converters' / tool)
        monkeypatch.setattr(sys, 'argv', [path, *arguments])
        runpy.run_path(path, run_name='__main__')

    return _call


def save(path, size='n'):
    torch.save({key: torch.zeros(shape) for key, shape in shapes(size).items()}, path)


def test_whole_model(call, capsys):
    save('in.pt')
    call('ultralytics_to_mmdet.py', 'in.pt', 'out.pth', '--list')
    out = capsys.readouterr().out
    assert 'model.0.conv.weight -> backbone.stem.conv.weight' in out
    assert '354 keys mapped, 1 skipped' in out
    assert len(torch.load('out.pth', weights_only=True)['state_dict']) == 354


def test_errors_are_one_line_and_write_nothing(call):
    with pytest.raises(SystemExit, match='^ultralytics_to_mmdet.py: error: no checkpoint at'):
        call('ultralytics_to_mmdet.py', 'none.pt', 'out.pth')
    assert not Path('out.pth').exists()


def test_rename_keys(call, capsys):
    torch.save({'module.net.w': torch.ones(1), 'module.ema.w': torch.ones(1)}, 'in.pth')
    call('rename_keys.py', 'in.pth', 'out.pth', '--strip', 'module.', '--map', 'net=backbone',
         '--keep', 'backbone')  # fmt: skip
    assert list(torch.load('out.pth', weights_only=True)['state_dict']) == ['backbone.w']
    out = capsys.readouterr().out
    assert out == 'module.net.w -> backbone.w\ndropped module.ema.w\nout.pth: 1 weights\n'


def test_rename_keys_errors(call, capsys):
    torch.save({'module.w': torch.ones(1)}, 'in.pth')
    with pytest.raises(SystemExit, match="^rename_keys.py: error: strip: prefix 'x' matches"):
        call('rename_keys.py', 'in.pth', 'out.pth', '--strip', 'x')
    with pytest.raises(SystemExit):
        call('rename_keys.py', 'in.pth', 'out.pth', '--map', 'a')
    assert "--map: invalid old_and_new value: 'a'" in capsys.readouterr().err
    assert not Path('out.pth').exists()
