"""Generate the pages of the site that nobody writes by hand; mkdocs-gen-files runs this file.

- ``index.md``, ``contributing.md``, ``changelog.md``, ``families/`` and ``projects/`` from the
  Markdown files at the root, in ``configs/`` and in ``projects/``;
- ``reference/``: a page for each room of the package from its docstrings, and tables of configs,
  registered names and commands.

Links in hand-written pages lead to files of the repository, so that they work on GitHub as well.
Here they are turned into links to the generated pages.
"""

import ast
import contextlib
import io
import os
import posixpath
import re
import runpy
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'mmdet_contrast'

# page: its title and the folders (or single files) of the package whose docstrings it shows
ROOMS: Dict[str, Tuple[str, Tuple[str, ...]]] = {
    'apis': ('Training, testing, inference', ('apis',)),
    'contrast': ('Contrastive branch', ('models/contrast', 'models/data_preprocessors')),
    'losses': ('Losses', ('models/losses',)),
    'detectors': ('Heads and detectors', ('models/dense_heads', 'models/detectors')),
    'networks': (
        'Backbones, necks, layers, assigners',
        ('models/backbones', 'models/necks', 'models/layers', 'models/task_modules'),
    ),
    'distill': ('Distillation', ('models/distill',)),
    'selfsup': ('Pre-training and linear evaluation', ('models/selfsup',)),
    'datasets': ('Data sets and transforms', ('datasets', 'datasets/transforms')),
    'hooks': ('Runner and hooks', ('engine', 'engine/hooks', 'engine/run_checks')),
    'evaluation': (
        'Metrics and embeddings',
        ('evaluation', 'evaluation/metrics', 'evaluation/functional'),
    ),
    'visualization': ('Pictures', ('visualization',)),
    'converters': ('Converters', ('converters',)),
    'utils': ('Shared helpers', ('utils',)),
}


def modules(room: str) -> List[str]:
    """List the public modules of a page by their paths below the root."""
    folders = [ROOT / PACKAGE / folder for folder in ROOMS[room][1]]
    files = [path for folder in folders for path in sorted(folder.glob('[!_]*.py'))]
    return [path.relative_to(ROOT).as_posix() for path in files]


def config_files() -> List[Path]:
    """List the shipped configs that are complete, in the order of their families."""
    files = [*ROOT.glob('configs/*.py'), *ROOT.glob('configs/[!_]*/*.py')]
    files += [p for p in ROOT.glob('projects/*/*.py') if '\n_base_ = ' in p.read_text('utf-8')]
    return sorted(files, key=lambda path: (len(path.parts), path))


def site_pages() -> Dict[str, str]:
    """Map files of the repository to the pages of the site that show them."""
    pages = {
        'README.md': 'index.md',
        'CONTRIBUTING.md': 'contributing.md',
        'CHANGELOG.md': 'changelog.md',
        'LICENSE': 'LICENSE',
        'CITATION.cff': 'CITATION.cff',
        'notebooks/own_data.ipynb': 'own_data.ipynb',
        'docs/results.csv': 'results.csv',
    }
    pages.update({p.relative_to(ROOT).as_posix(): p.name for p in ROOT.glob('docs/*.md')})
    for kind, folder in (('families', 'configs'), ('projects', 'projects')):
        for path in sorted(ROOT.glob(f'{folder}/*/README.md')):
            pages[path.relative_to(ROOT).as_posix()] = f'{kind}/{path.parent.name}.md'
    for path in config_files():
        pages[path.relative_to(ROOT).as_posix()] = 'reference/configs.md'
    for path in (*ROOT.glob('tools/**/*.*'), *ROOT.glob('projects/*/*.py')):
        pages[path.relative_to(ROOT).as_posix()] = 'reference/commands.md'
    for room in ROOMS:
        for module in modules(room):
            dotted = module[: -len('.py')].replace('/', '.')
            pages[module] = f'reference/{room}.md#{dotted}'
    return pages


def for_the_site(text: str, source: str, target: str, pages: Dict[str, str]) -> str:
    """Turn the relative links of a file of the repository into links between pages.

    Args:
        text (str): The file's Markdown.
        source (str): Its path below the root.
        target (str): The path of its page.
        pages (dict[str, str]): The page of every file.

    Returns:
        str: The page's Markdown. A link to a file that no page shows keeps its text only.
    """

    def replace(match: 're.Match[str]') -> str:
        label, link = match.groups()
        path, _, anchor = link.partition('#')
        if '://' in link or link.startswith(('mailto:', '#')):
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = pages.get(path)
        if page is None:
            if path.startswith('docs/'):
                page = path[len('docs/') :]
            else:
                return label[1:-1]
        page, _, of_page = page.partition('#')
        anchor = anchor or of_page
        relative = posixpath.relpath(page, posixpath.dirname(target) or '.')
        return f'{label}({relative}{"#" + anchor if anchor else ""})'

    parts = re.split(r'(^```.*?^```$)', text, flags=re.M | re.S)
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r'(!?\[(?:[^][]|\[[^]]*\])*\])\(([^)\s]+)\)', replace, parts[index])
    return ''.join(parts)


def first_comment(path: Path) -> str:
    """Join the comment lines at the top of a config."""
    lines = []
    for line in path.read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            break
        lines.append(line.lstrip('# '))
    return ' '.join(lines)


def results(model: Dict[str, object]) -> str:
    """Write the results of a model in a metafile as one cell of a table."""
    cells = []
    for result in model.get('Results') or ():
        metrics = ', '.join(f'{name} {value}' for name, value in result['Metrics'].items())
        cells.append(f'{result.get("Dataset", "")}: {metrics}')
    return '; '.join(cells)


def config_page(pages: Dict[str, str]) -> str:
    """Write the table of configs from their headers and the families' metafiles."""
    known = {}
    for metafile in sorted(ROOT.glob('configs/*/metafile.yml')):
        for model in yaml.safe_load(metafile.read_text(encoding='utf-8')).get('Models') or ():
            known[Path(model['Config']).stem] = results(model)
    lines = [
        '# Configs',
        '',
        'Every shipped config, what it is (the first lines of the file) and the results in the '
        '`metafile.yml` of its family. '
        '`config_path(name)` and `mim` find a config by its name.',
    ]
    folder: Optional[Path] = None
    for path in config_files():
        if path.parent != folder:
            folder = path.parent
            title = folder.relative_to(ROOT).as_posix()
            readme = pages.get(f'{title.replace("/configs", "")}/README.md')
            more = f'[What, when and how](../{readme})\n\n' if readme else ''
            lines += [
                '',
                f'## {title}',
                '',
                f'{more}| config | what it is | results |',
                '|---|---|---|',
            ]
        what = first_comment(path).replace('|', '\\|')
        lines.append(f'| `{path.name}` | {what} | {known.get(path.stem, "")} |')
    return '\n'.join(lines) + '\n'


def registered() -> Iterator[Tuple[str, str, type]]:
    """Yield name, registry and class of everything the package registers."""
    import mmdet.registry
    from mmengine.registry import Registry

    import mmdet_contrast  # noqa: F401

    for registry_name, registry in sorted(vars(mmdet.registry).items()):
        if isinstance(registry, Registry):
            for name, kind in sorted(registry.module_dict.items()):
                if getattr(kind, '__module__', '').startswith(PACKAGE):
                    yield name, registry_name, kind


def name_page(pages: Dict[str, str]) -> str:
    """Write the table of registered names."""
    lines = [
        '# Registered names',
        '',
        "Everything is in MMDetection's own registries: a config names it by its `type`. "
        'The names lead to the arguments.',
        '',
        '| name | registry | what it is |',
        '|---|---|---|',
    ]
    for name, registry, kind in registered():
        page = pages.get(kind.__module__.replace('.', '/') + '.py', '').partition('#')[0]
        if page:
            anchor = f'{kind.__module__}.{kind.__qualname__}'
            name = f'[`{name}`]({posixpath.basename(page)}#{anchor})'
        else:
            name = f'`{name}`'
        what = (kind.__doc__ or '').strip().split('\n\n')[0]
        what = re.sub(r':\w+:`~?([^`]+)`', r'`\1`', ' '.join(what.split())).replace('|', '\\|')
        lines.append(f'| {name} | {registry} | {what} |')
    return '\n'.join(lines) + '\n'


def scripts() -> List[Path]:
    """List the commands that parse arguments."""
    files = [*ROOT.glob('tools/*.py'), *ROOT.glob('tools/*/*.py'), *ROOT.glob('projects/*/*.py')]
    return [path for path in sorted(files) if 'ArgumentParser(' in path.read_text('utf-8')]


def help_of(script: Path) -> str:
    """Run a script's ``--help`` in this process, in which torch is loaded already."""
    out, argv, path, columns = io.StringIO(), sys.argv, list(sys.path), os.environ.get('COLUMNS')
    sys.argv, sys.path[0:0] = [script.name, '--help'], [str(script.parent)]
    os.environ['COLUMNS'] = '88'
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            runpy.run_path(str(script), run_name='__main__')
    finally:
        sys.argv, sys.path[:] = argv, path
        os.environ.pop('COLUMNS') if columns is None else os.environ.update(COLUMNS=columns)
    return out.getvalue()


def command_page() -> str:
    """Write what every command says to ``--help``."""
    lines = ['# Commands', '', 'What `--help` says.']
    for script in scripts():
        name = script.relative_to(ROOT).as_posix()
        lines += ['', f'## {name}', '', '```text', help_of(script).strip(), '```']
    return '\n'.join(lines) + '\n'


def reference_page(room: str) -> str:
    """Write the page of a room: mkdocstrings fills it from the docstrings."""
    lines = [f'# {ROOMS[room][0]}']
    for module in modules(room):
        tree = ast.parse((ROOT / module).read_text(encoding='utf-8'))
        public = (ast.ClassDef, ast.FunctionDef)
        if any(isinstance(node, public) and node.name[0] != '_' for node in tree.body):
            lines += ['', f'::: {module[: -len(".py")].replace("/", ".")}']
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Write all pages into the site's virtual files."""
    import mkdocs_gen_files

    def write(target: str, text: str) -> None:
        with mkdocs_gen_files.open(target, 'w') as file:
            file.write(text)

    pages = site_pages()
    for source, target in pages.items():
        if source.endswith('.md'):
            text = (ROOT / source).read_text(encoding='utf-8')
            write(target, for_the_site(text, source, target, pages))
        elif '/' not in source or source.endswith('.ipynb'):
            if (ROOT / source).is_file():
                write(target, (ROOT / source).read_text(encoding='utf-8'))
    write('reference/configs.md', config_page(pages))
    write('reference/names.md', name_page(pages))
    write('reference/commands.md', command_page())
    for room in ROOMS:
        write(f'reference/{room}.md', reference_page(room))


if __name__ in ('__main__', '<run_path>'):
    main()
