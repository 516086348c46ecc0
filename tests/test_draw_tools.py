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


def test_sheet_and_pictures(call, capsys):
    sheet, pictures = call('c.py', 'p.pkl', '--out', 's.png', '--out-dir', 'd', '--iou-thr', '0.7')
    common = dict(score_thr=0.3, min_panel=640, iou_thr=0.7)
    assert sheet == ('save_detection_sheet', ('c.py', 'p.pkl', 's.png'), dict(common, num=8))
    assert pictures == ('save_detection_pictures', ('c.py', 'p.pkl', 'd'), dict(common, num=None))
    assert capsys.readouterr().out == 'detections in s.png\n2 pictures in d\n'


def test_somewhere_to_write_to_is_needed(call, capsys):
    with pytest.raises(SystemExit):
        call('c.py', 'p.pkl')
    assert (
        'give --out for a sheet, --out-dir for a picture of each image' in capsys.readouterr().err
    )
