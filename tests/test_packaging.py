import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from mmdet_contrast import config_path
from mmdet_contrast.utils import config as config_module

KINDS = ('regular', 'editable', 'wheel')
CONFIG = 'retina_contrast_shapes.py'
MIM = "import sys; from mim.cli import cli; sys.argv[0] = 'mim'; cli()"


def check(command, **kwargs):
    """Run a command; fail with all it said."""
    out = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )
    assert out.returncode == 0, f'{command}\n{out.stdout}'
    return out.stdout


def pip(python, *args, cwd):
    return check([python, '-m', 'pip', *args, '--no-deps', '--no-build-isolation', '-q'], cwd=cwd)


@pytest.fixture(scope='module')
def source(repo_root, tmp_path_factory) -> Path:
    """A clean copy of the source tree, so that no build leaves traces in it."""
    target = tmp_path_factory.mktemp('source') / 'tree'
    ignored = shutil.ignore_patterns(
        '.git', '.venv*', '.mim', 'build', 'dist', '*.egg-info', 'work_dirs', 'data', '.*_cache',
        '__pycache__', '.hypothesis',
    )  # fmt: skip
    shutil.copytree(repo_root, target, ignore=ignored)
    return target


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('wheel')
    pip(sys.executable, 'wheel', '-w', out, source, cwd=out)
    (path,) = out.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def sdist(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('sdist')
    code = f'from setuptools import build_meta; build_meta.build_sdist({str(out)!r})'
    check([sys.executable, '-c', code], cwd=source)
    (path,) = out.glob('*.tar.gz')
    return path


def tree_files(root, *folders):
    """Files that have to be shipped, relative to the root."""
    found = set()
    for folder in folders:
        for path in (root / folder).rglob('*'):
            if path.is_file() and path.suffix in ('.py', '.sh'):
                found.add(path.relative_to(root).as_posix())
    return found


def test_wheel_has_package_configs_and_tools(source, wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = file.read(
            next(name for name in names if name.endswith('.dist-info/METADATA'))
        ).decode()
        modes = {info.filename: info.external_attr >> 16 for info in file.infolist()}
    assert tree_files(source, 'mmdet_contrast') <= names
    shipped = tree_files(source, 'configs', 'tools')
    assert any(name.startswith('configs/') for name in shipped) and 'tools/train.py' in shipped
    assert {f'mmdet_contrast/.mim/{name}' for name in shipped} <= names
    assert 'mmdet_contrast/.mim/model-index.yml' in names
    assert modes['mmdet_contrast/.mim/tools/dist_train.sh'] & 0o100
    assert not any('__pycache__' in name or name.startswith('tests') for name in names)
    # mim and a plain import find the package by the first line of this file.
    with zipfile.ZipFile(wheel) as file:
        (top_level,) = [name for name in names if name.endswith('top_level.txt')]
        assert file.read(top_level).decode().split() == ['mmdet_contrast']
    required = [
        line
        for line in metadata.splitlines()
        if line.startswith('Requires-Dist') and ';' not in line
    ]
    assert required and not any('mm' in line.split(':')[1] for line in required)
    assert 'Requires-Python: >=3.8' in metadata


@pytest.mark.slow
def test_sdist_builds_the_same_wheel(wheel, sdist, tmp_path):
    with tarfile.open(sdist) as file:
        names = {name.split('/', 1)[-1] for name in file.getnames()}
    assert {'setup.py', 'LICENSE', 'model-index.yml', 'requirements/runtime.txt'} <= names
    assert not any('.mim/' in name for name in names)
    pip(sys.executable, 'wheel', '-w', tmp_path, sdist, cwd=tmp_path)
    (again,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


def make_environment(folder, kind, source, wheel):
    """An environment with the tested stack below it and this package in it, without downloads."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / 'bin' / 'python'
    purelib = Path(
        check([python, '-c', "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    )
    # `--system-site-packages` would give the base Python's packages, not those of this environment.
    # A folder named in a .pth does not have its own .pth files run, so no editable package leaks.
    (purelib / 'zz_stack.pth').write_text(sysconfig.get_path('purelib') + '\n')
    what = {'regular': [source], 'editable': ['-e', source], 'wheel': [wheel]}[kind]
    pip(python, 'install', *what, cwd=folder)
    return python


@pytest.fixture(scope='module', params=KINDS)
def installed(request, source, wheel, tmp_path_factory):
    """The Python of an environment in which the package is installed, and where from."""
    tree = source
    if request.param == 'editable':
        # Links in the tree that the other kinds are built from would hide a missing copy.
        tree = tmp_path_factory.mktemp('editable') / 'tree'
        shutil.copytree(source, tree, symlinks=True)
    python = make_environment(
        tmp_path_factory.mktemp(request.param) / 'env', request.param, tree, wheel
    )
    return python, request.param, tree


@pytest.fixture
def elsewhere(tmp_path):
    """A working directory from which the source tree cannot be imported, and an environment."""
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    env['PYTHONWARNINGS'] = 'ignore'
    return dict(cwd=tmp_path, env=env)


@pytest.mark.slow
def test_mim_finds_package_configs_and_tools(installed, elsewhere):
    python, kind, tree = installed
    code = 'from mim.utils import get_installed_path as p; print(p("mmdet_contrast"))'
    root = Path(check([python, '-c', code], **elsewhere).splitlines()[-1])
    assert (root / '__init__.py').is_file()
    assert (kind == 'editable') == (root == tree / 'mmdet_contrast')
    if kind != 'editable':
        assert python.parents[1] in root.parents
    mim = root / '.mim'
    assert (mim / 'configs').is_symlink() == (kind == 'editable')
    for folder in ('configs', 'tools'):
        for name in tree_files(tree, folder):
            assert (mim / name).read_bytes() == (tree / name).read_bytes()
    assert (mim / 'model-index.yml').is_file()
    # mim takes a config by its file name, and refuses one that is there twice.
    names = [path.name for path in (mim / 'configs').resolve().rglob('*.py')]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_editable_sees_new_configs(source, wheel, tmp_path, elsewhere):
    tree = tmp_path / 'tree'
    shutil.copytree(source, tree)
    python = make_environment(tmp_path / 'env', 'editable', tree, wheel)
    (tree / 'configs' / 'brand_new.py').write_text('model = None\n')
    assert (tree / 'mmdet_contrast' / '.mim' / 'configs' / 'brand_new.py').is_file()
    # Installing again must replace the links, not follow them.
    pip(python, 'install', '-e', tree, cwd=tmp_path)
    assert (tree / 'configs' / 'brand_new.py').is_file()


# --- config_path


def test_config_path_of_the_source_tree(repo_root):
    path = Path(config_path(CONFIG))
    assert path == repo_root / 'configs/contrast' / CONFIG
    assert config_path(CONFIG[: -len('.py')]) == str(path)
    assert path.is_absolute() and path.is_file()


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package as a wheel leaves it, with a few configs."""
    configs = tmp_path / 'mmdet_contrast' / '.mim' / 'configs'
    for name in ('retina_a.py', 'retina_b.py', 'deep/gfl.py', 'deep/twice.py', 'other/twice.py'):
        (configs / name).parent.mkdir(parents=True, exist_ok=True)
        (configs / name).write_text('')
    monkeypatch.setattr(config_module, 'PACKAGE_ROOT', tmp_path / 'mmdet_contrast')
    return configs.resolve()


def test_config_path_of_a_wheel(shipped, tmp_path):
    # beside the package, as in site-packages, where it may be anybody's
    (tmp_path / 'configs').mkdir()
    assert config_path('retina_a') == str(shipped / 'retina_a.py')
    assert config_path('deep/gfl.py') == config_path('gfl.py') == str(shipped / 'deep' / 'gfl.py')


def test_unknown_config_names_near_ones(shipped):
    with pytest.raises(FileNotFoundError, match="'retina_c.py' below .*mean retina_[ab].py or"):
        config_path('retina_c.py')
    with pytest.raises(FileNotFoundError, match='mean deep/gfl.py or .*retina_b.py'):
        config_path('zzz')
    with pytest.raises(FileNotFoundError, match='mean deep/twice.py or other/twice.py'):
        config_path('twice')


# --- the set-up script


def set_up(source, *args, **env):
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ('VIRTUAL_ENV', 'CONDA_PREFIX', 'PYTHONPATH')
    }
    return subprocess.run(
        ['bash', str(source / 'tools' / 'setup_env.sh'), *map(str, args)],
        env=dict(clean, **env),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        (['--wrong'], "unknown argument '--wrong'"),
        (['--venv'], '--venv needs a value'),
        (['--use-current', '--venv', 'x'], '--use-current excludes --venv and --stack'),
        (['--use-current', '--stack', 'classic'], '--use-current excludes --venv and --stack'),
        (['--stack', 'old'], "unknown stack 'old': give modern or classic"),
        (['--use-current', '--python', '/no/such/python'], "'/no/such/python' does not run"),
    ],
)
def test_setup_says_what_is_wrong_in_one_sentence(source, args, text):
    out = set_up(source, *args)
    assert out.returncode == 1 and out.stdout == ''
    assert text in out.stderr and len(out.stderr.splitlines()) == 1


def test_setup_refuses_a_current_environment_that_does_not_work(source, tmp_path):
    venv.create(tmp_path / 'empty', with_pip=False, symlinks=True)
    out = set_up(source, '--use-current', '--python', tmp_path / 'empty' / 'bin' / 'python')
    assert out.returncode == 1 and out.stdout == ''
    assert 'torch is not installed' in out.stderr
    assert 'MMDetection does not work with' in out.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize('how', ['--use-current', '--python', 'VIRTUAL_ENV'])
def test_setup_leaves_a_working_environment_alone(source, wheel, tmp_path, how):
    tree = tmp_path / 'tree'
    shutil.copytree(source, tree)
    python = make_environment(tmp_path / 'env', 'wheel', source, wheel)
    purelib = next((tmp_path / 'env' / 'lib').glob('*/site-packages'))
    args = {
        '--use-current': ['--use-current', '--python', python],
        '--python': ['--python', python],
    }
    env = dict(VIRTUAL_ENV=str(tmp_path / 'env')) if how == 'VIRTUAL_ENV' else {}
    out = set_up(tree, *args.get(how, []), **env)
    assert out.returncode == 0, out.stderr
    assert out.stdout == f'{python}\n'
    assert 'as it is' in out.stderr
    assert not (tree / '.venv').exists()
    # The package, editable now, and nothing of the stack.
    installed = sorted(path.name for path in purelib.glob('*.dist-info'))
    assert [name.split('-')[0] for name in installed] == ['mmdet_contrast']
    assert (tree / 'mmdet_contrast' / '.mim' / 'tools').is_symlink()
    again = set_up(tree, *args.get(how, []), **env)
    assert (again.returncode, again.stdout, again.stderr) == (0, f'{python}\n', '')


FAKE_PYTHON = """#!/usr/bin/env bash
# A Python that installs nothing and has a torch of the test's.
home="$(dirname "$0")/.."
case "$*" in
  '-c import sys; print(sys.executable)') echo "$0" ;;
  *sys.prefix*) echo "$home" ;;
  *purelib*) echo "$home" ;;
  '-m venv '*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  '-m mmdet_contrast.doctor'*) [ -e "$home/.mmdet_contrast_stamp" ] ;;
  '-m compileall'*) ;;
  '-m pip wheel'*)
    echo "archs: ${TORCH_CUDA_ARCH_LIST:-those of torch}" >>"$FAKES/calls"
    mkdir -p "$8" && cp "$FAKES/built.whl" "$8/mmcv-2.1.0-any.whl" ;;
  '-m pip'*) echo "$*" >>"$FAKES/calls" ;;
  *) PYTHONPATH="$FAKES" exec "$REAL_PYTHON" "$@" ;;
esac
"""
FAKE_TORCH = """
import os

__version__ = '2.11.0'


class version:
    cuda = '13.0'


class cuda:
    is_available = staticmethod(lambda: 'GPU' in os.environ)
    device_count = staticmethod(lambda: 1)
    get_device_capability = staticmethod(lambda index: (9, 0))
"""


@pytest.fixture
def fakes(tmp_path):
    """Set up an environment from a made-up Python; its folder."""
    (tmp_path / 'torch/utils').mkdir(parents=True)
    (tmp_path / 'torch/__init__.py').write_text(FAKE_TORCH)
    home = tmp_path / 'cuda'
    (tmp_path / 'torch/utils/cpp_extension.py').write_text(f'CUDA_HOME = {str(home)!r}')
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/python').write_text(FAKE_PYTHON)
    (tmp_path / 'bin/python').chmod(0o755)
    with zipfile.ZipFile(tmp_path / 'built.whl', 'w') as file:
        file.writestr('mmcv/_ext.so', '')
    return tmp_path


def set_up_fakes(source, fakes, *args, **env):
    args = ['--python', fakes / 'bin/python', '--venv', fakes / 'env', *args]
    env.update(FAKES=str(fakes), REAL_PYTHON=sys.executable, TORCH_CUDA_ARCH_LIST='7.0 8.0 9.0')
    return set_up(source, *args, CXX='true', MMDET_CONTRAST_CACHE=str(fakes / 'cache'), **env)


@pytest.mark.parametrize(
    ('env', 'kind', 'archs', 'own_torch'),
    [
        ({}, 'nogpu', '7.0 8.0 9.0', True),
        (dict(FORCE_CUDA='1'), 'cuda', '7.0 8.0 9.0', True),
        (dict(GPU='1'), 'sm_90', 'those of torch', False),
    ],
)
def test_setup_builds_for_the_gpu_that_the_torch_at_hand_sees(
    source, fakes, env, kind, archs, own_torch
):
    (fakes / 'cuda/bin').mkdir(parents=True)
    (fakes / 'cuda/bin/nvcc').write_text('')
    out = set_up_fakes(source, fakes, **env)
    assert (out.returncode, out.stdout) == (0, f'{fakes}/env/bin/python\n'), out.stderr
    (kept,) = (fakes / 'cache/wheels').iterdir()
    assert kept.name.endswith(f'-{kind}') and list(kept.glob('*.whl'))
    calls = (fakes / 'calls').read_text()
    assert f'archs: {archs}\n' in calls
    assert ('stack.txt' in calls) == own_torch
    base = fakes / 'env/zz_base_torch.pth'
    assert base.exists() != own_torch
    if not own_torch:
        assert base.read_text() == f'{fakes}\n'


def test_setup_of_a_stack_takes_its_pins_and_not_the_torch_at_hand(source, fakes):
    (fakes / 'cuda/bin').mkdir(parents=True)
    (fakes / 'cuda/bin/nvcc').write_text('')
    # One folder for both: the stamp of one stack is none of the other.
    for stack, pins, other in (
        ('classic', 'classic.txt', '/stack.txt'),
        ('modern', '/stack.txt', 'classic.txt'),
    ):
        out = set_up_fakes(source, fakes, '--stack', stack, GPU='1')
        assert (out.returncode, out.stdout) == (0, f'{fakes}/env/bin/python\n'), out.stderr
        calls = (fakes / 'calls').read_text()
        assert pins in calls and other not in calls
        assert not (fakes / 'env/zz_base_torch.pth').exists()
        (fakes / 'calls').unlink()
        again = set_up_fakes(source, fakes, '--stack', stack, GPU='1')
        assert (again.returncode, again.stderr) == (0, '') and not (fakes / 'calls').exists()


def test_setup_needs_nvcc_for_a_gpu(source, fakes):
    out = set_up_fakes(source, fakes, GPU='1')
    assert out.returncode == 1 and out.stdout == ''
    assert 'there is no nvcc' in out.stderr.splitlines()[-1]


# --- training through mim, from each kind of installation


@pytest.mark.slow
def test_mim_trains_and_tests(installed, elsewhere):
    from shapes import make_shapes

    python, _, tree = installed
    cwd = elsewhere['cwd']
    make_shapes(cwd / 'data' / 'shapes', num_images=dict(train=16, val=4, test=4), seed=0)
    options = ['--cfg-options', 'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1']
    mim = [python, '-c', MIM]
    # A config of one's own below the working directory, and a shipped one by its name alone.
    (cwd / 'configs').mkdir()
    mine = cwd / 'configs' / 'mine.py'
    mine.write_text(f"_base_ = __import__('mmdet_contrast').config_path('{CONFIG}')\n")
    for package, config in (('mmdet', 'configs/mine.py'), ('mmdet_contrast', CONFIG)):
        out = check([*mim, 'train', package, config, '--work-dir', package, *options], **elsewhere)
        assert 'loss_contrast_p3' in out and 'Epoch(val) [1]' in out
        assert (cwd / package / 'epoch_1.pth').is_file()
    # By its path, as from the source tree; and on from the checkpoint, which torch must load.
    command = [
        *mim,
        'train',
        'mmdet',
        tree / 'configs/contrast' / CONFIG,
        '--work-dir',
        'mmdet',
        '--resume',
    ]
    out = check([*command, *options, 'train_cfg.max_epochs=2'], **elsewhere)
    assert 'resumed epoch: 1' in out and (cwd / 'mmdet' / 'epoch_2.pth').is_file()
    command = [*mim, 'test', 'mmdet', 'configs/mine.py', '--checkpoint', 'mmdet/epoch_2.pth']
    out = check([*command, '--work-dir', 'tested'], **elsewhere)
    assert 'Epoch(test) [1/1]' in out and 'Testing finished successfully' in out
