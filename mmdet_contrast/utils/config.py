"""Where the shipped configs are."""

import difflib
from pathlib import Path
from typing import List

PACKAGE_ROOT = Path(__file__).resolve().parents[1]


def config_root() -> Path:
    """Find the folder of the shipped configs.

    Returns:
        Path: ``configs/`` of the source tree when the package is used from one, else the copy that
        a wheel installs as ``mmdet_contrast/.mim/configs``.

    Raises:
        FileNotFoundError: If the package has been installed without its configs.
    """
    # `setup.py` tells a source tree from a folder that happens to be called `configs`.
    source = PACKAGE_ROOT.parent
    if (source / 'setup.py').is_file() and (source / 'configs').is_dir():
        return source / 'configs'
    shipped = PACKAGE_ROOT / '.mim' / 'configs'
    if shipped.is_dir():
        return shipped.resolve()
    raise FileNotFoundError(
        f'mmdet_contrast in {PACKAGE_ROOT} has no configs: neither {source / "configs"} nor '
        f'{shipped} exists; install the package again with `pip install`.'
    )


def config_path(name: str) -> str:
    """Give the absolute path of a shipped config, for a project of one's own to inherit from.

    Args:
        name (str): The config's file name, or its path below ``configs/``; ``.py`` may be left out.

    Returns:
        str: The absolute path.

    Raises:
        FileNotFoundError: If no shipped config, or more than one, has that name.

    Example:
        In a config, where MMEngine evaluates ``_base_`` before any other line of the file::

            _base_ = __import__('mmdet_contrast').config_path('retina_contrast_coco.py')
    """
    root = config_root()
    wanted = name if name.endswith('.py') else f'{name}.py'
    if (root / wanted).is_file():
        return str(root / wanted)
    known = sorted(path.relative_to(root).as_posix() for path in root.rglob('*.py'))
    matches = [path for path in known if path.rsplit('/', 1)[-1] == wanted]
    if len(matches) == 1:
        return str(root / matches[0])
    if matches:
        raise FileNotFoundError(
            f'config {name!r} is ambiguous: give one of {", ".join(matches)} (paths below {root}).'
        )
    raise FileNotFoundError(
        f'no shipped config is called {name!r}; {_near(wanted, known)} (below {root}).'
    )


def _near(wanted: str, known: List[str]) -> str:
    """Say which known configs a misspelt name may have meant."""
    configs = [path for path in known if not path.startswith('_base_/')] or known
    near = difflib.get_close_matches(wanted, configs, n=3, cutoff=0.5)
    if near:
        return f'did you mean {" or ".join(near)}?'
    return f'there are: {", ".join(configs) or "none"}'
