"""The command line of the tool that draws detections."""

import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / 'tools' / 'analysis_tools' / 'draw_detections.py'


@pytest.fixture
def call(monkeypatch):
    import mmdet_contrast.visualization as package

    calls = []
    for name in ('save_detection_sheet', 'save_detection_pictures'):

        def remember(*args, name=name, **kwargs):
            calls.append((name, args, kwargs))
            return ['one.png', 'two.png'] if name.endswith('pictures') else args[2]

        monkeypatch.setattr(package, name, remember)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['draw_detections.py', *arguments])
        runpy.run_path(str(TOOL), run_name='__main__')
        return calls

    return run


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'c.py'
    path.write_text('model = dict(number=1)\n')
    return str(path)


def test_sheet_and_pictures(call, config, capsys):
    sheet, pictures = call(config, 'p.pkl', '--out', 's.png', '--out-dir', 'd', '--iou-thr', '0.7')
    common = dict(score_thr=0.3, min_panel=640, iou_thr=0.7)
    for (name, given, options), place, num in ((sheet, 's.png', 8), (pictures, 'd', None)):
        assert name == f'save_detection_{"sheet" if num else "pictures"}'
        assert given[0].model.number == 1
        assert given[1:] == ('p.pkl', place)
        assert options == dict(common, num=num)
    assert capsys.readouterr().out == 'detections in s.png\n2 pictures in d\n'


def test_options_replace_values_of_the_config(call, config):
    ((_, given, _),) = call(config, 'p.pkl', '--out', 's.png', '--cfg-options', 'model.number=2')
    assert given[0].model.number == 2


def test_somewhere_to_write_to_is_needed(call, capsys):
    with pytest.raises(SystemExit):
        call('c.py', 'p.pkl')
    assert (
        'give --out for a sheet, --out-dir for a picture of each image' in capsys.readouterr().err
    )
