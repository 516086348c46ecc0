"""The order of the package's rooms, and what importing it loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmdet_contrast

PACKAGE = Path(mmdet_contrast.__file__).parent
# A room imports itself and those before it.
ROOMS = (
    'version',
    'collect_env',
    'doctor',
    'compat',
    'utils',
    'datasets',
    'models',
    'evaluation',
    'engine',
    'visualization',
    'converters',
    'apis',
)
MODULES = [path for path in sorted(PACKAGE.rglob('*.py')) if path != PACKAGE / '__init__.py']


def imported_names(path):
    """Yield (dotted module of the package, name or None) for all imports from the package."""
    own = ('mmdet_contrast', *path.relative_to(PACKAGE).with_suffix('').parts)
    own = own[:-1] if own[-1] == '__init__' else own
    package = own if path.name == '__init__.py' else own[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = '.'.join((*base, *filter(None, [node.module])))
            yield from ((module, alias.name) for alias in node.names)


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix('').parts[0]


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_and_take_nothing_private(path):
    allowed = ROOMS[: ROOMS.index(room_of(path)) + 1]
    for module, name in imported_names(path):
        if module.split('.')[0] != 'mmdet_contrast':
            continue
        parts = [part for part in (*module.split('.')[1:], name) if part]
        assert not parts or parts[0] in (*allowed, '__version__'), f'{module}: {name}'
        assert not any(p.startswith('_') and not p.startswith('__') for p in parts), parts


def test_a_training_worker_loads_no_drawing_code():
    code = (
        'import sys, mmdet.apis, mmdet.datasets, mmdet.engine, mmdet.evaluation, mmdet.models\n'
        'before = set(sys.modules)\n'
        'import mmdet_contrast\n'
        'print(*sorted(set(sys.modules) - before))'
    )
    out = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True
    )
    loaded = out.stdout.split()
    assert 'mmdet_contrast.models' in loaded
    heavy = ('matplotlib', 'PIL.ImageDraw', 'PIL.ImageFont', 'scipy', 'sklearn', 'onnx', 'rich')
    assert not [name for name in loaded if name.startswith(heavy)]
    rooms = ('mmdet_contrast.apis', 'mmdet_contrast.converters')
    assert not [name for name in loaded if name.startswith(rooms)]
