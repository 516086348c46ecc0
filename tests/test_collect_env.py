import os
import runpy
import subprocess
import sys

import pytest

from mmdet_contrast import collect_env
from mmdet_contrast.collect_env import Stack, diagnose


def make_stack(errors=None, distributions=(), without=(), gpus=0, **versions):
    """The tested stack, with the given changes."""
    base = dict(
        torch='2.13.0+cpu',
        numpy='2.4.6',
        cv2='5.0.0',
        pycocotools='2.0.11',
        mmengine='0.10.7',
        mmcv='2.1.0',
        mmdet='3.3.0',
        mim='0.3.9',
        setuptools='81.0.0',
        tensorboard='2.21.0',
    )
    base.update(versions)
    for name in without:
        del base[name]
    return Stack('3.11.7', base, errors or {}, distributions, None, gpus)


def errors_of(stack):
    return [finding for finding in diagnose(stack) if finding.level == 'error']


@pytest.mark.parametrize(
    'versions',
    [
        dict(),
        dict(torch='2.1.2+cu121', numpy='1.26.4', setuptools='68.0.0', mmengine='0.10.1'),
        dict(torch='2.1.2', numpy='1.26.4', mmcv='2.0.1', mmdet='3.2.0'),
        dict(torch='2.14.0', torchvision='0.29.0'),
    ],
)
def test_working_stacks_need_nothing(versions):
    assert diagnose(make_stack(**versions)) == []


UNDEFINED = 'ImportError: mmcv/_ext.so: undefined symbol: _ZN2at4_ops'
NO_OPS = "ModuleNotFoundError: No module named 'mmcv._ext'"
CASES = {
    'mmcv without ops': (
        make_stack({'mmcv._ext': NO_OPS, 'mmdet': NO_OPS}),
        'has no ops',
        'MMCV_WITH_OPS=1 pip install --no-build-isolation',
    ),
    'ops of another torch': (
        make_stack({'mmcv._ext': UNDEFINED, 'mmdet': UNDEFINED}),
        'another torch or Python',
        'mmcv==2.1.0',
    ),
    'ops without CUDA': (
        make_stack({'mmcv.ops.nms': 'RuntimeError: implementation for device cuda:0'}, gpus=1),
        'ops were built without CUDA',
        'MMCV_WITH_OPS=1 pip install --no-build-isolation',
    ),
    'mmcv-lite': (
        make_stack({'mmcv._ext': NO_OPS}, ('mmcv-lite',)),
        'mmcv-lite writes into the same folder',
        'pip uninstall -y mmcv mmcv-lite && ',
    ),
    'mmcv too new': (
        make_stack({'mmdet': 'AssertionError: MMCV==2.2.0 is used'}, mmcv='2.2.0'),
        'mmcv 2.2.0 is outside of >=2.0, <2.2',
        'mmcv==2.1.0',
    ),
    'ops for torch 2.14': (
        make_stack({'mmcv._ext': NO_OPS}, torch='2.14.0'),
        'has no ops',
        'sed -i "s/c++17/c++20/g" mmcv-2.1.0/setup.py',
    ),
    'setuptools 82': (
        make_stack({'pkg_resources': 'x', 'mim': 'x'}, setuptools='82.0.0'),
        'setuptools 82.0.0 has no pkg_resources',
        'pip install "setuptools<82"',
    ),
    'no setuptools': (
        make_stack({'pkg_resources': 'x', 'mim': 'x'}, without=['setuptools']),
        'no pkg_resources',
        'pip install "setuptools<82"',
    ),
    'broken torchvision': (
        make_stack(
            {
                'torchvision': 'RuntimeError: operator torchvision::nms does not exist',
                'mmdet': 'RuntimeError: operator torchvision::nms does not exist',
            },
            torchvision='0.28.0',
        ),
        'torchvision 0.28.0 is installed and broken',
        'pip uninstall -y torchvision',
    ),
    'numpy 2 with torch 2.1': (
        make_stack({'numpy_bridge': 'RuntimeError: Numpy is not available'}, torch='2.1.2'),
        'torch 2.1.2 cannot use numpy 2.4.6',
        'pip install "numpy<2"',
    ),
    'numpy that torch cannot use': (
        make_stack({'numpy_bridge': 'RuntimeError: Numpy is not available'}),
        'cannot use numpy 2.4.6',
        'pip install --force-reinstall --no-deps numpy',
    ),
    'broken OpenCV': (
        make_stack({'cv2': 'ImportError: libGL.so.1: cannot open', 'mmcv': 'ImportError: libGL'}),
        'cv2 5.0.0 does not import',
        'pip install --force-reinstall --no-deps opencv-python',
    ),
    'mmdet too old': (make_stack(mmdet='2.28.2'), 'mmdet 2.28.2 is outside', 'mmdet==3.3.0'),
    'no mmdet': (make_stack(without=['mmdet']), 'mmdet is not installed', 'mmdet==3.3.0'),
    'mmdet misses a module': (
        make_stack({'mmdet': "ModuleNotFoundError: No module named 'terminaltables'"}),
        'mmdet 3.3.0 does not import',
        'pip install terminaltables',
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_each_breakage_gets_one_error_with_its_command(name):
    stack, text, command = CASES[name]
    found = errors_of(stack)
    assert len(found) == 1, found
    assert text in found[0].text
    assert command in found[0].command
    assert '\n' not in found[0].text + found[0].command


def test_several_causes_are_all_named():
    stack = make_stack({'pkg_resources': 'x', 'mmcv._ext': NO_OPS}, setuptools='82.1.0')
    assert len(errors_of(stack)) == 2


def test_missing_extras_are_warnings():
    found = diagnose(make_stack(without=['mim', 'tensorboard']))
    assert [finding.level for finding in found] == ['warning', 'warning']
    assert 'openmim==0.3.9' in found[0].command


def test_report_has_versions_and_verdict():
    good, bad = make_stack(), make_stack({'mmcv._ext': NO_OPS})
    text = collect_env.report(good, diagnose(good))
    assert 'torch          2.13.0+cpu (CPU only)' in text
    assert 'mmcv           2.1.0\n' in text
    assert text.splitlines()[-1] == 'Training can run.'
    text = collect_env.report(bad, diagnose(bad))
    assert 'mmcv           2.1.0 (broken: mmcv._ext)' in text
    assert text.splitlines()[-1] == 'Training cannot run: 1 problem(s) above.'
    assert sum(line.startswith('ERROR: ') for line in text.splitlines()) == 1


@pytest.mark.parametrize(('gpus', 'found'), [(1, [True]), (0, [])])
def test_ops_run_on_the_gpu_that_torch_sees(monkeypatch, gpus, found):
    def nms(*args):
        raise RuntimeError('nms_impl: implementation for device cuda:0 not found.')

    monkeypatch.setattr('torch.cuda.is_available', lambda: gpus > 0)
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    monkeypatch.setattr('torch.Tensor.cuda', lambda tensor: tensor)
    monkeypatch.setattr('mmcv.ops.nms', nms)
    stack = collect_env.collect()
    assert ['cuda:0 not found' in finding.text for finding in errors_of(stack)] == found
    assert ('(broken: mmcv.ops.nms)' in collect_env.report(stack, [])) == bool(gpus)


def test_exit_status_follows_the_errors(monkeypatch, capsys):
    monkeypatch.setattr(collect_env, 'collect', lambda: make_stack({'mmcv._ext': NO_OPS}))
    assert collect_env.main([]) == 1
    assert 'Fix: ' in capsys.readouterr().out
    monkeypatch.setattr(collect_env, 'collect', make_stack)
    assert collect_env.main(['--stack', '--quiet']) == 0
    assert capsys.readouterr().out == ''
    broken = [collect_env.Finding('error', 'no', 'yes')]
    monkeypatch.setattr(collect_env, 'check_package', lambda: broken)
    assert collect_env.main([]) == 1
    assert collect_env.main(['--stack']) == 0


def run(repo_root, path, *command):
    # what is installed may be on it
    paths = [str(path), str(repo_root), os.environ.get('PYTHONPATH', '')]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)))
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *command],
        env=env,
        cwd=path,
        capture_output=True,
        text=True,
    )


def test_runs_here(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['doctor'])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module('mmdet_contrast.doctor', run_name='__main__')
    assert stop.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'Training can run.'


def test_runs_when_dependencies_are_broken(repo_root, tmp_path):
    (tmp_path / 'torchvision').mkdir()
    (tmp_path / 'torchvision/__init__.py').write_text("raise RuntimeError('no operator nms')\n")
    (tmp_path / 'mmdet.py').write_text('import torchvision\n')
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text("__version__ = '2.1.0'\n")
    out = run(repo_root, tmp_path, '-m', 'mmdet_contrast.doctor', '--stack')
    assert out.returncode == 1, out.stderr
    lines = [line for line in out.stdout.splitlines() if line.startswith('ERROR')]
    assert len(lines) == 2
    assert 'torchvision' in lines[0] and 'no operator nms' in lines[0]
    assert 'has no ops' in lines[1]
    assert 'Traceback' not in out.stderr


def test_failing_import_names_the_doctor(repo_root, tmp_path):
    (tmp_path / 'mmdet.py').write_text("raise ImportError('half an installation')\n")
    out = run(repo_root, tmp_path, '-c', 'import mmdet_contrast')
    assert out.returncode == 1
    last = out.stderr.strip().splitlines()[-1]
    assert last.startswith('ImportError: mmdet_contrast cannot register its modules')
    assert 'half an installation' in last and '`python -m mmdet_contrast.doctor`' in last
    assert 'The above exception was the direct cause' in out.stderr
