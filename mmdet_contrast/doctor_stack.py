"""What is installed: versions, and why a module does not import."""

import importlib
import platform
import warnings
from dataclasses import dataclass, field
from importlib import metadata
from typing import Callable, Dict, Optional, Tuple

__all__ = ['MODULES', 'Stack', 'collect', 'one_line']

# Import name → name of the distribution that usually provides it.
MODULES = {
    'torch': 'torch',
    'torchvision': 'torchvision',
    'numpy': 'numpy',
    'cv2': 'opencv-python',
    'pycocotools': 'pycocotools',
    'mmengine': 'mmengine',
    'mmcv': 'mmcv',
    'mmdet': 'mmdet',
    'mim': 'openmim',
    'setuptools': 'setuptools',
    'tensorboard': 'tensorboard',
}


@dataclass
class Stack:
    """What is installed, as far as the diagnosis needs it.

    Attributes:
        python (str): Version of Python.
        versions (dict[str, str]): Version by import name; a module that is not there is left out.
        errors (dict[str, str]): Why a module that is installed does not import, by import name;
            ``'mmcv._ext'`` are mmcv's compiled ops, ``'numpy_bridge'`` is torch's way to numpy,
            ``'pkg_resources'`` is the part of setuptools that mim and mmengine use.
        distributions (tuple[str, ...]): Names of installed distributions that are known to collide.
        cuda (str | None): CUDA version torch was built for.
        gpus (int): Number of GPUs that torch sees.
    """

    python: str
    versions: Dict[str, str] = field(default_factory=dict)
    errors: Dict[str, str] = field(default_factory=dict)
    distributions: Tuple[str, ...] = ()
    cuda: Optional[str] = None
    gpus: int = 0


def one_line(error: BaseException) -> str:
    """Name an exception and the first line of its message."""
    lines = str(error).strip().splitlines() or ['no message']
    return f'{type(error).__name__}: {lines[0][:200]}'


def _probe(name: str, stack: Stack) -> None:
    """Import a module and keep its version, or the reason why it does not import."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return
        stack.errors[name] = one_line(error)
    # A broken binary raises anything from OSError to RuntimeError or AssertionError.
    except Exception as error:
        stack.errors[name] = one_line(error)
    else:
        stack.versions[name] = str(getattr(module, '__version__', '') or _distributed(name) or '?')
        return
    stack.versions[name] = _distributed(name) or '?'


def _distributed(name: str) -> Optional[str]:
    """Look a version up in the installed metadata, without importing the module."""
    try:
        return metadata.version(MODULES.get(name, name))
    except metadata.PackageNotFoundError:
        return None


def collect() -> Stack:
    """Import what training stands on, one after the other, and keep what happens.

    Returns:
        Stack: Versions and import errors of the running interpreter.
    """
    stack = Stack(python=platform.python_version())
    for name in MODULES:
        _probe(name, stack)
    probes: Dict[str, Callable[[], object]] = {
        'pkg_resources': lambda: importlib.import_module('pkg_resources'),
    }
    if 'mmcv' in stack.versions and 'mmcv' not in stack.errors:
        probes['mmcv._ext'] = lambda: importlib.import_module('mmcv._ext')
    if 'torch' in stack.versions and 'torch' not in stack.errors:
        import torch

        stack.cuda = torch.version.cuda
        stack.gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if 'numpy' in stack.versions:
            probes['numpy_bridge'] = lambda: torch.zeros(1).numpy()
    for name, probe in probes.items():
        try:
            probe()
        except Exception as error:
            stack.errors[name] = one_line(error)
    stack.distributions = tuple(name for name in ('mmcv-lite', 'mmcv-full') if _distributed(name))
    return stack
