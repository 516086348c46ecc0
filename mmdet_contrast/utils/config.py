"""Configs: where the shipped ones are, and how one is read."""

import argparse
import difflib
import inspect
import os
import os.path as osp
from contextlib import contextmanager
from copy import deepcopy
from math import isfinite
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Union

from mmengine.config import Config
from mmengine.runner import Runner

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
# Top-level keys of a config that something reads: the parameters of ``Runner``, and others that
# MMEngine or MMDetection look up.
CONFIG_KEYS = {
    *list(inspect.signature(Runner.__init__).parameters)[1:],
    'auto_scale_lr',
    'compile',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}


class LaunchError(ValueError):
    """A run that cannot start; the message says what was given, what was expected, what to change.

    It is also raised by what starts several runs, of which one fails; the message names its log.

    The programs in ``tools/`` print it as one line; other exceptions keep their traceback.
    """


@contextmanager
def errors_in_one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End a program by one line where a :class:`LaunchError` or an unusable file ends it.

    Args:
        parser (argparse.ArgumentParser): Names the program.

    Yields:
        None: While the program works.
    """
    try:
        yield
    except (LaunchError, OSError) as error:
        raise SystemExit(f'{parser.prog}: error: {error}') from error


def dataset_chain(dataset: Any) -> List[Any]:
    """List the config of a data set and of those inside of it.

    Args:
        dataset (dict): Config of a data set.

    Returns:
        list[dict]: Wrappers first, outermost to innermost, then the data set that they wrap; of
        several parts the first one.
    """
    inner = dataset.get('dataset') or next(iter(dataset.get('datasets') or ()), None)
    return [dataset] if inner is None else [dataset, *dataset_chain(inner)]


def load_config(
    config: Union[str, 'os.PathLike[str]', Config],
    work_dir: Optional[str] = None,
    cfg_options: Optional[Dict[str, Any]] = None,
    launcher: str = 'none',
) -> Config:
    """Read a config and apply what the command line says.

    Args:
        config (str | PathLike | Config): Config file, or a loaded config, which is copied.
        work_dir (str, optional): Folder for logs and checkpoints. Defaults to the config's own
            ``work_dir``, else ``./work_dirs/<config name>``.
        cfg_options (dict, optional): Dotted keys and their new values.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        Config: The config to build a runner from.

    Raises:
        LaunchError: If the file does not exist, or nothing reads a key of ``cfg_options``.

    Example:
        >>> cfg = load_config('my.py', cfg_options={'train_cfg.max_epochs': 3})
    """
    if isinstance(config, Config):
        cfg, name = deepcopy(config), config.filename or 'config'
    else:
        name = os.fspath(config)
        if not osp.isfile(name):
            raise LaunchError(f'config file {name!r} does not exist (looked in {os.getcwd()}).')
        cfg = Config.fromfile(name)
    for key in cfg_options or {}:
        _check_key(cfg, key)
    cfg.merge_from_dict(dict(cfg_options or {}))
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = os.fspath(work_dir)
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs', osp.splitext(osp.basename(name))[0])
    return cfg


def _check_key(cfg: Config, key: str) -> None:
    """Refuse a key that nothing reads: a misspelt one would change nothing."""
    known = {*cfg.keys(), *CONFIG_KEYS}
    top = key.split('.')[0]
    if top not in known:
        near = difflib.get_close_matches(top, sorted(known), n=1)
        hint = f'did you mean {near[0]!r}?' if near else f'the config has {sorted(cfg)}.'
        raise LaunchError(f'--cfg-options: nothing reads the key {key!r}; {hint}')


def config_text(cfg: Config) -> str:
    """Lay out a config as Python, so that it can be read back.

    Args:
        cfg (Config): The config.

    Returns:
        str: Its ``pretty_text``, with ``float('inf')`` where that has the name ``inf``.
    """
    return Config(_with_infinity(cfg.to_dict())).pretty_text


class _Infinity(float):
    def __repr__(self) -> str:
        return f"float('{float(self)}')"


def _with_infinity(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _with_infinity(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)([_with_infinity(value) for value in node])
    return _Infinity(node) if isinstance(node, float) and not isfinite(node) else node


def type_name(kind: Any) -> str:
    """Name the ``type`` of a config's part without its scope or module.

    Args:
        kind (Any): A registered name, with or without a scope, or the class itself, as MMEngine's
            lazy configs have it.

    Returns:
        str: The name of the class.

    Example:
        >>> type_name('mmdet.PackDetInputs')
        'PackDetInputs'
    """
    return getattr(kind, '__name__', str(kind)).split('.')[-1]


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
    near = matches or difflib.get_close_matches(wanted, known, n=3, cutoff=0.5) or known
    raise FileNotFoundError(
        f'no shipped config, or more than one, is called {name!r} below {root}; did you mean '
        f'{" or ".join(near)}?'
    )
