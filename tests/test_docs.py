"""The documents keep their promises: links lead somewhere, commands and configs in them work.

Fenced blocks of README.md, CONTRIBUTING.md, docs/ and the READMEs of configs and projects:

- ``python`` without an import is a config or a part of one: MMEngine reads it, every ``type`` in it
  is registered and takes the arguments that are given, and whole models are built. A block whose
  first line is a comment with a file name can be inherited from by later blocks of its page.
- ``python`` with imports is code: what it imports exists; pages in ``EXECUTED`` are run.
- ``shell``: scripts, configs, make targets and options exist.
"""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from functools import lru_cache
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted(ROOT.glob('docs/*.md')),
    *sorted(ROOT.glob('configs/*/README.md')),
    *sorted(ROOT.glob('projects/*/README.md')),
]
# what a page supposes its reader to have
STAND_INS = {'old.py': 'yolov8_n_bccd.py', 'old_retina.py': 'retina_bccd.py'}
EXECUTED = ('contrast.md', 'instruments.md')
# commands that are no business of this repository
OTHERS = ('cd', 'export', 'git', 'pip', 'pre-commit', 'run', 'suffix', 'T', '.')
# what the builders of MMEngine and mmcv take out of a dict before they call its `type`
BUILDER_KEYS = (
    *('type', '_scope_', '_delete_', 'priority', 'convert_to_iter_based', 'paramwise_cfg'),
    'requires_grad',
)
FENCE = re.compile(r'^( *)```(\w*)\n(.*?)^\1```$', re.M | re.S)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    found = [(indent, text) for indent, kind, text in FENCE.findall(page.read_text('utf-8'))
             if kind == language]  # fmt: skip
    return [re.sub(f'^{indent}', '', text, flags=re.M) for indent, text in found]


def is_code(text):
    return any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(text).body)


def titled(text):
    match = re.match(r'# (\w+\.py)\n', text)
    return match and match.group(1)


@lru_cache(None)
def site():
    """The generator of the site, as a module."""
    spec = importlib.util.spec_from_file_location('gen_reference', ROOT / 'docs/gen_reference.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(None)
def help_of(script):
    return site().help_of(ROOT / script)


# --- links


def anchors(page):
    text = FENCE.sub('', page.read_text('utf-8'))
    titles = [
        re.sub(r'[`*]|\[([^]]*)\]\([^)]*\)', r'\1', t) for t in re.findall(r'^#+ (.*)', text, re.M)
    ]
    return {re.sub(r'[^\w\- ]', '', title.lower()).strip().replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    text = re.sub(r'`[^`\n]*`', '', FENCE.sub('', page.read_text('utf-8')))
    wrong = []
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        path, _, anchor = link.partition('#')
        if '://' in link or link.startswith('mailto:'):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    text = page.read_text('utf-8')
    # the reader's own files, and what a command leaves
    own = {titled(block) for block in blocks(page, 'python')} | {
        *STAND_INS,
        'plain.py',
        'detector.py',
    }
    folders = ('configs', 'tools', 'projects', 'benchmarks', 'tests', 'docs', 'mmdet_contrast')
    known = [p.relative_to(ROOT).as_posix() for f in folders for p in ROOT.glob(f'{f}/**/*.*')]
    known += [path.name for path in ROOT.iterdir()]
    wrong = []
    for name in re.findall(r'`([\w./-]+\.(?:py|sh|md|yml|npz|ipynb))(?:::\w+)?`', text):
        name = re.sub(r'^(\.\./)+', '', name)
        if name in own or re.match(r'mine|[A-Z_]+/', name):
            continue
        if not any(f'/{path}'.endswith(f'/{name}') for path in known):
            wrong.append(name)
    assert not wrong


def test_site_turns_links_to_sources_into_links_to_pages():
    pages = {'docs/a.md': 'a.md', 'mmdet_contrast/x.py': 'reference/x.md#mmdet_contrast.x'}
    text = '[a](a.md#part) [x](../mmdet_contrast/x.py) [y](../gone.txt) [z](https://z.org)\n'
    assert site().for_the_site(text, 'docs/b.md', 'b.md', pages) == (
        '[a](a.md#part) [x](reference/x.md#mmdet_contrast.x) y [z](https://z.org)\n'
    )


# --- configs


def registries():
    import mmdet.registry
    from mmdet.utils import register_all_modules

    import mmdet_contrast  # noqa: F401

    register_all_modules(init_default_scope=False)
    return [kind for kind in vars(mmdet.registry).values() if isinstance(kind, Registry)]


def registered(name):
    for registry in registries():
        kind = registry.get(name)
        if kind is not None:
            return kind
    raise AssertionError(f'nothing is registered as {name!r}')


def accepts(kind, key):
    """Whether a class or function takes an argument; what ``**kwargs`` passes on is followed."""
    if key in BUILDER_KEYS:
        return True
    for owner in inspect.getmro(kind) if inspect.isclass(kind) else [kind]:
        function = vars(owner).get('__init__') if inspect.isclass(owner) else owner
        if function is None or owner is object:
            continue
        parameters = inspect.signature(function).parameters
        if key in parameters:
            return True
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return False
    return True


def parts(value):
    """Yield every dict with a ``type`` that is a name."""
    if isinstance(value, dict):
        if isinstance(value.get('type'), str):
            yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from parts(item)


def check_parts(cfg):
    for part in parts(cfg):
        if part['type'] in ('diou_nms', 'weighted_nms', 'nms', 'soft_nms', 'Pretrained'):
            continue
        kind = registered(part['type'])
        unknown = [key for key in part if not accepts(kind, key)]
        assert not unknown, f'{part["type"]} takes no {unknown}'


def write_stand_in(folder, name):
    base = STAND_INS[name]
    (folder / name).write_text(
        f"_base_ = __import__('mmdet_contrast').config_path({base!r})\n"
        "data = __import__('mmdet_contrast').own_data('data', ('car', 'person'))\n"
        'locals().update(data)\n'
    )


CONFIG_PAGES = [p for p in PAGES if any(not is_code(text) for text in blocks(p, 'python'))]


@pytest.mark.parametrize('page', CONFIG_PAGES, ids=name_of)
def test_config_blocks(page, tmp_path):
    from mmdet.registry import MODELS

    for name in STAND_INS:
        write_stand_in(tmp_path, name)
    for index, text in enumerate(blocks(page, 'python')):
        if is_code(text):
            continue
        file = tmp_path / (titled(text) or f'block_{index}.py')
        file.write_text(text)
        cfg = Config.fromfile(file, lazy_import=False, import_custom_modules=False)
        cfg = cfg.to_dict()
        # a part by itself, such as `dict(type=...)`, is no setting that MMEngine would keep
        check_parts(cfg)
        if '_base_' in text and 'model' in cfg:
            MODELS.build(ConfigDict(cfg['model']))


def test_accepts_tells_known_from_unknown_arguments():
    from mmdet.registry import HOOKS, MODELS

    assert accepts(MODELS.get('RetinaHead'), 'stacked_convs')
    assert accepts(MODELS.get('ContrastiveRetinaHead'), 'stacked_convs')
    assert accepts(MODELS.get('ContrastiveRetinaHead'), 'contrast')
    assert not accepts(HOOKS.get('FreezeBackboneHook'), 'freeze_for')


# --- code

CODE_PAGES = [p for p in PAGES if any(is_code(text) for text in blocks(p, 'python'))]


@pytest.mark.parametrize('page', CODE_PAGES, ids=name_of)
def test_code_blocks(page):
    before = {id(registry): set(registry.module_dict) for registry in registries()}
    for text in filter(is_code, blocks(page, 'python')):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith('mm'):
                module = importlib.import_module(node.module)
                assert not [n.name for n in node.names if not hasattr(module, n.name)], node.module
        if page.name in EXECUTED:
            exec(compile(text, str(page), 'exec'), {'__name__': 'block'})
    for registry in registries():
        for name in set(registry.module_dict) - before[id(registry)]:
            registry.module_dict.pop(name)


# --- commands


def commands(text):
    """Split a shell block into commands; variables and substitutions become ``*``."""
    text = re.sub(r'\\\n', ' ', text)
    text = re.sub(r'\$\([^)]*\)|\$\{\w+\}|\$\w+', '*', text)
    text = '\n'.join(line for line in text.splitlines() if not line.lstrip().startswith('#'))
    text = re.sub(r'\s# .*', '', text)
    for line in re.split(r'&&|;|\n', text):
        tokens = shlex.split(line)
        while tokens and (tokens[0] in ('do', 'then') or re.match(r'[A-Z_]+=', tokens[0])):
            tokens.pop(0)
        if tokens and tokens[0] not in ('for', 'done', 'if', 'fi'):
            yield tokens


def test_commands_are_split():
    text = 'for x in a b; do\n  A=1 python t.py $x \\\n --k "1 2"  # why\ndone; make demo\n'
    assert list(commands(text)) == [['python', 't.py', '*', '--k', '1 2'], ['make', 'demo']]


def check_options(script, tokens, more=''):
    known = set(re.findall(r'--[\w-]+', help_of(script) + more))
    assert known, f'{script} --help says nothing'
    given = {token.split('=')[0] for token in tokens if token.startswith('--')}
    assert given <= known, f'{script} has no {sorted(given - known)}'


def check_config_options(config, tokens):
    from mmdet_contrast.utils.config import load_config

    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    start = tokens.index('--cfg-options')
    stop = next((i for i in range(start + 1, len(tokens)) if tokens[i][:2] == '--'), len(tokens))
    load_config(ROOT / config, cfg_options=parser.parse_args(tokens[start:stop]).cfg_options)


def check_command(tokens):
    program, rest = tokens[0], tokens[1:]
    for token in rest:
        if re.match(r'(configs|projects)/.*\.py$', token):
            assert list(ROOT.glob(token)), token
    if program in OTHERS or '=' in program:
        return
    if program == 'make':
        targets = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M)
        wanted = [token for token in rest if '=' not in token]
        assert set(wanted) <= set(targets), wanted
        return
    if program == 'mim':
        assert rest[0] in ('train', 'test') and rest[1] in ('mmdet', 'mmdet_contrast')
        check_options(f'tools/{rest[0]}.py', rest, '--checkpoint --gpus --launcher')
    elif program == 'bash':
        assert (ROOT / rest[0]).is_file(), rest[0]
    elif program.endswith('.sh'):
        assert os.access(ROOT / program, os.X_OK), program
        check_options('tools/test.py' if 'test' in program else 'tools/train.py', rest)
    elif program == 'python' and rest[0] == '-m':
        # an extra may not be installed
        extra = rest[1].startswith('visdom') and importlib.util.find_spec('visdom') is None
        assert extra or importlib.util.find_spec(rest[1]), rest[1]
        return
    else:
        assert program == 'python', f'unknown command {program!r}'
        assert (ROOT / rest[0]).is_file(), rest[0]
        check_options(rest[0], rest[1:])
    config = next((t for t in rest if t.startswith('configs/') and '*' not in t), None)
    if config and '--cfg-options' in rest and not any('*' in token for token in rest):
        check_config_options(config, rest)


SHELL_PAGES = [page for page in PAGES if blocks(page, 'shell')]


@pytest.mark.parametrize('page', SHELL_PAGES, ids=name_of)
def test_shell_blocks(page):
    for text in blocks(page, 'shell'):
        for tokens in commands(text):
            check_command(tokens)


def test_blocks_have_languages_that_are_tested():
    languages = {kind for page in PAGES for _, kind, _ in FENCE.findall(page.read_text('utf-8'))}
    assert languages <= {'', 'python', 'shell', 'json', 'text', 'yaml'}


# --- end to end


def parts_data(shapes, folder):
    """Lay the generated shapes out as the guides' ``data/parts``, with two classes."""
    (folder / 'annotations').mkdir(parents=True)
    (folder / 'JPEGImages').mkdir()
    for split in ('train', 'val', 'test'):
        data = json.loads((shapes / f'annotations/instances_{split}.json').read_text())
        first, second = [category['id'] for category in data['categories']][:2]
        names = {first: 'bolt', second: 'nut'}
        data['categories'] = [dict(id=key, name=name) for key, name in names.items()]
        data['annotations'] = [a for a in data['annotations'] if a['category_id'] in names]
        (folder / f'annotations/{split}.json').write_text(json.dumps(data))
        for image in (shapes / split).iterdir():
            shutil.copy(image, folder / 'JPEGImages' / image.name)


def run(command, folder):
    env = dict(os.environ, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_own_data_from_look_to_curves(tiny_shapes, tmp_path):
    page = ROOT / 'docs/own_data.md'
    parts_data(tiny_shapes, tmp_path / 'data/parts')
    for name in ('tools', 'configs'):
        (tmp_path / name).symlink_to(ROOT / name)
    config = next(t for t in blocks(page, 'python') if titled(t) == 'my_data.py')
    (tmp_path / 'my_data.py').write_text(config)
    text = next(t for t in blocks(page, 'shell') if 'mim train mmdet my_data.py' in t)
    # the same in one epoch instead of fifteen
    options = '--cfg-options train_cfg.max_epochs=1 default_hooks.checkpoint.interval=1'
    text = text.replace('mim train mmdet my_data.py', f'python tools/train.py my_data.py {options}')
    text = text.replace('epoch_15.pth', 'epoch_1.pth')
    for tokens in commands(text):
        run([sys.executable, *tokens[1:]], tmp_path)
    for made in ('predictions.pkl', 'detections.png', 'losses.png'):
        assert (tmp_path / made).stat().st_size > 0
    assert list((tmp_path / 'pictures').iterdir())


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_notebook(tmp_path, monkeypatch):
    nbformat = pytest.importorskip('nbformat')
    nbclient = pytest.importorskip('nbclient')

    (tmp_path / 'notebooks').mkdir()
    (tmp_path / 'projects').symlink_to(ROOT / 'projects')
    book = nbformat.read(ROOT / 'notebooks/own_data.ipynb', as_version=4)
    place = dict(metadata=dict(path=str(tmp_path / 'notebooks')))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    nbclient.NotebookClient(book, timeout=1800, kernel_name='python3', resources=place).execute()
    work = tmp_path / 'work_dirs/notebook'
    assert (work / 'detections.png').is_file()
    assert (work / 'work_dirs/compare/compare.md').is_file()


def test_notebook_is_stored_without_outputs():
    book = json.loads((ROOT / 'notebooks/own_data.ipynb').read_text())
    code = [cell for cell in book['cells'] if cell['cell_type'] == 'code']
    assert code
    assert not any(cell['outputs'] or cell['execution_count'] for cell in code)
    for cell in code:
        ast.parse(''.join(cell['source']))


def test_generated_tables_name_configs_and_registered_names():
    generator = site()
    pages = generator.site_pages()
    table = generator.config_page(pages)
    assert '| `retina_contrast_coco.py` | RetinaNet' in table
    for path in generator.config_files():
        assert generator.first_comment(path), f'{path} does not say what it is'
    names = generator.name_page(pages)
    contract = ('ContrastiveView', 'RegionContrast', 'NTXentLoss', 'YOLOv8Head', 'DistillationHook')
    assert all(f'[`{name}`](' in names for name in contract)
