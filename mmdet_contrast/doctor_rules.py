"""The known breakages of a stack, and the command that mends each."""

import re
from dataclasses import dataclass
from typing import List, Optional, Tuple

from .doctor_stack import MODULES, Stack

__all__ = ['Finding', 'diagnose', 'release']

MMCV_RANGE = ((2, 0), (2, 2))
MMDET_RANGE = ((3, 2), (3, 4))
MMENGINE_RANGE = ((0, 10), (1, 0))
BUILD_TOOLS = 'pip install "setuptools<82" wheel ninja psutil'
MMCV_BUILD = (
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --no-cache-dir --force-reinstall '
    '--no-binary mmcv'
)
MMDET_INSTALL = (
    'pip install --no-deps mmdet==3.3.0 && '
    'pip install pycocotools scipy shapely six terminaltables tqdm matplotlib'
)
OPENMIM_INSTALL = (
    'pip install --no-deps openmim==0.3.9 && '
    'pip install click colorama model-index pandas requests rich tabulate'
)


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        level (str): ``'error'``: training cannot run; ``'warning'``: something is missing that
            training does not need; ``'note'``: good to know, nothing to mend.
        text (str): What is the matter.
        command (str): The command that mends it, or an empty string.
    """

    level: str
    text: str
    command: str = ''


def release(version: Optional[str]) -> Optional[Tuple[int, int]]:
    """Read major and minor number of a version; None where there are none."""
    match = re.match(r'(\d+)\.(\d+)', version or '')
    if match is None:
        return None
    return int(match.group(1)), int(match.group(2))


def _outside(
    version: Optional[str], limits: Tuple[Tuple[int, int], Tuple[int, int]]
) -> Optional[bool]:
    number = release(version)
    return None if number is None else not limits[0] <= number < limits[1]


def _build_mmcv(stack: Stack) -> str:
    """Give the command that builds mmcv's ops for the installed torch."""
    torch = release(stack.versions.get('torch'))
    if torch is not None and torch >= (2, 14):
        # torch's headers need C++20 from 2.14 on, and mmcv 2.1.0 asks for C++17.
        return (
            f'{BUILD_TOOLS} && pip download --no-deps --no-build-isolation --no-binary mmcv '
            'mmcv==2.1.0 && tar xzf mmcv-2.1.0.tar.gz && '
            f'sed -i "s/c++17/c++20/g" mmcv-2.1.0/setup.py && {MMCV_BUILD} ./mmcv-2.1.0'
        )
    return f'{BUILD_TOOLS} && {MMCV_BUILD} mmcv==2.1.0'


def _mend_import(name: str, message: str) -> str:
    """Give the command for a module that is installed and does not import."""
    missing = re.search(r"No module named '([\w.]+)'", message)
    if missing:
        return f'pip install {missing.group(1).split(".")[0]}'
    return f'pip install --force-reinstall --no-deps {MODULES.get(name, name)}'


def _diagnose_base(stack: Stack) -> List[Finding]:
    """Check setuptools, torch, numpy, OpenCV, pycocotools and torchvision."""
    found = []
    versions, errors = stack.versions, stack.errors
    setuptools = release(versions.get('setuptools'))
    if 'pkg_resources' in errors or (setuptools is not None and setuptools >= (82, 0)):
        found.append(
            Finding(
                'error',
                f'setuptools {versions.get("setuptools", "is missing:")} has no pkg_resources, '
                'which mim, mmengine\'s "mmdet::" configs and the mmcv build import (gone in 82).',
                'pip install "setuptools<82"',
            )
        )
    for name in ('torch', 'numpy', 'cv2', 'pycocotools'):
        if name not in versions:
            package = MODULES[name]
            found.append(Finding('error', f'{package} is not installed.', f'pip install {package}'))
        elif name in errors and not _torch_numpy_mismatch(stack):
            found.append(
                Finding(
                    'error',
                    f'{name} {versions[name]} does not import ({errors[name]}).',
                    _mend_import(name, errors[name]),
                )
            )
    if _torch_numpy_mismatch(stack):
        found.append(
            Finding(
                'error',
                f'torch {versions["torch"]} was built for numpy 1 and numpy is {versions["numpy"]}'
                ': tensors cannot become arrays.',
                'pip install "numpy<2"',
            )
        )
    elif 'numpy_bridge' in errors:
        found.append(
            Finding(
                'error',
                f'torch {versions.get("torch")} cannot use numpy {versions.get("numpy")} '
                f'({errors["numpy_bridge"]}).',
                'pip install --force-reinstall --no-deps numpy',
            )
        )
    if 'torchvision' in errors:
        found.append(
            Finding(
                'error',
                f'torchvision {versions.get("torchvision", "?")} is installed and broken '
                f'({errors["torchvision"]}): mmdet fails to import beside it, and needs none.',
                'pip uninstall -y torchvision',
            )
        )
    return found


def _torch_numpy_mismatch(stack: Stack) -> bool:
    torch, numpy = release(stack.versions.get('torch')), release(stack.versions.get('numpy'))
    return torch is not None and numpy is not None and torch < (2, 3) and numpy >= (2, 0)


def _diagnose_openmmlab(stack: Stack) -> List[Finding]:
    """Check mmengine, mmcv with its ops, mmdet and mim."""
    found = []
    versions, errors = stack.versions, stack.errors
    lite = [name for name in stack.distributions if name in ('mmcv-lite', 'mmcv-full')]
    if lite:
        found.append(
            Finding(
                'error',
                f'{" and ".join(lite)} writes into the same folder as mmcv, whose ops are needed.',
                f'pip uninstall -y mmcv {" ".join(lite)} && {_build_mmcv(stack)}',
            )
        )
    if 'mmengine' not in versions:
        found.append(Finding('error', 'mmengine is not installed.', 'pip install mmengine==0.10.7'))
    elif _outside(versions['mmengine'], MMENGINE_RANGE):
        found.append(
            Finding(
                'error',
                f'mmengine {versions["mmengine"]} is outside of >=0.10, <1.0.',
                'pip install mmengine==0.10.7',
            )
        )
    if 'mmcv' not in versions:
        found.append(Finding('error', 'mmcv is not installed.', _build_mmcv(stack)))
    elif _outside(versions['mmcv'], MMCV_RANGE):
        found.append(
            Finding(
                'error',
                f'mmcv {versions["mmcv"]} is outside of >=2.0, <2.2, the only versions that mmdet '
                '3.3 accepts.',
                _build_mmcv(stack),
            )
        )
    elif 'mmcv._ext' in errors and not lite:
        reason = errors['mmcv._ext']
        text = (
            f'mmcv {versions["mmcv"]} was built without its ops (mmcv._ext), which mmdet needs.'
            if 'No module named' in reason
            else f"mmcv {versions['mmcv']}'s ops do not load, as they were built for another torch "
            f'or Python ({reason}).'
        )
        found.append(Finding('error', text, _build_mmcv(stack)))
    if 'mmdet' not in versions:
        found.append(Finding('error', 'mmdet is not installed.', MMDET_INSTALL))
    elif _outside(versions['mmdet'], MMDET_RANGE):
        found.append(
            Finding(
                'error',
                f'mmdet {versions["mmdet"]} is outside of >=3.2, <3.4.',
                MMDET_INSTALL,
            )
        )
    explained = bool(found) or any(
        name in errors for name in ('torch', 'torchvision', 'numpy', 'cv2', 'pycocotools')
    )
    for name in ('mmengine', 'mmcv', 'mmdet'):
        # What is broken below makes these fail as well: one line each for causes, none for effects.
        if name in errors and not explained:
            found.append(
                Finding(
                    'error',
                    f'{name} {versions[name]} does not import ({errors[name]}).',
                    _mend_import(name, errors[name]),
                )
            )
            explained = True
    return found


def _diagnose_extras(stack: Stack) -> List[Finding]:
    """Collect what training can do without, and what the package mends by itself."""
    found = []
    versions, errors = stack.versions, stack.errors
    if 'mim' not in versions:
        found.append(
            Finding(
                'warning',
                'openmim is not installed: `mim train` is not there, `python tools/train.py` is.',
                OPENMIM_INSTALL,
            )
        )
    elif 'mim' in errors and 'pkg_resources' not in errors:
        found.append(
            Finding(
                'warning',
                f'openmim {versions["mim"]} does not import ({errors["mim"]}).',
                OPENMIM_INSTALL,
            )
        )
    if 'tensorboard' not in versions or 'tensorboard' in errors:
        found.append(
            Finding(
                'warning',
                'tensorboard is not installed or does not import: configs that log to it stop.',
                'pip install tensorboard',
            )
        )
    torch = release(versions.get('torch'))
    if torch is not None and torch >= (2, 6):
        found.append(
            Finding(
                'note',
                f'torch {versions["torch"]} loads only bare weights by default; '
                'mmdet_contrast.compat loads local checkpoints whole: load only those you trust.',
            )
        )
    if torch is not None and stack.gpus == 0:
        found.append(
            Finding(
                'note',
                'torch sees no GPU: training runs on the CPU, where AMP and SyncBN do not.',
            )
        )
    return found


def diagnose(stack: Stack) -> List[Finding]:
    """Say what is wrong with a stack.

    Args:
        stack (Stack): From :func:`collect`, or made up.

    Returns:
        list[Finding]: Errors first, in the order in which they should be mended.
    """
    return _diagnose_base(stack) + _diagnose_openmmlab(stack) + _diagnose_extras(stack)
