"""What is installed, what of it is known to break, and the command that fixes each breakage.

``python -m mmdet_contrast.doctor`` prints the versions and one line for each breakage. Its exit
status is 0 only when training can run.
"""

import argparse
import importlib
import platform
import re
import warnings
from dataclasses import dataclass, field
from importlib import metadata
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from .version import __version__

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
            ``'mmcv._ext'`` are mmcv's compiled ops, ``'mmcv.ops.nms'`` is one of them on the GPU,
            ``'numpy_bridge'`` is torch's way to numpy, ``'pkg_resources'`` is the part of
            setuptools that mim and mmengine use.
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
    version = _distributed(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            module = importlib.import_module(name)
        version = getattr(module, '__version__', version)
    # A broken binary raises anything from OSError to RuntimeError or AssertionError.
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            return
        stack.errors[name] = one_line(error)
    stack.versions[name] = str(version or '?')


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
        if stack.gpus and 'mmcv._ext' in probes:
            probes['mmcv.ops.nms'] = _run_op_on_gpu
    for name, probe in probes.items():
        try:
            probe()
        except Exception as error:
            stack.errors[name] = one_line(error)
    stack.distributions = tuple(name for name in ('mmcv-lite', 'mmcv-full') if _distributed(name))
    return stack


def _run_op_on_gpu() -> None:
    import torch
    from mmcv.ops import nms

    nms(torch.zeros(1, 4).cuda(), torch.zeros(1).cuda(), 0.5)


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
            training does not need.
        text (str): What is the matter.
        command (str): The command that fixes it.
    """

    level: str
    text: str
    command: str


def release(version: Optional[str]) -> Optional[Tuple[int, int]]:
    """Read major and minor number of a version; None where there are none."""
    match = re.match(r'(\d+)\.(\d+)', version or '')
    if match is None:
        return None
    return int(match.group(1)), int(match.group(2))


def _below(version: Optional[str], limit: Tuple[int, int]) -> bool:
    number = release(version)
    return number is not None and number < limit


def _build_mmcv(stack: Stack) -> str:
    """Give the command that builds mmcv's ops for the installed torch."""
    if release(stack.versions.get('torch')) and not _below(stack.versions['torch'], (2, 14)):
        # torch's headers need C++20 from 2.14 on, and mmcv 2.1.0 asks for C++17.
        return (
            f'{BUILD_TOOLS} && pip download --no-deps --no-build-isolation --no-binary mmcv '
            'mmcv==2.1.0 && tar xzf mmcv-2.1.0.tar.gz && '
            f'sed -i "s/c++17/c++20/g" mmcv-2.1.0/setup.py && {MMCV_BUILD} ./mmcv-2.1.0'
        )
    return f'{BUILD_TOOLS} && {MMCV_BUILD} mmcv==2.1.0'


def _diagnose_base(stack: Stack) -> Iterator[Finding]:
    """Check setuptools, torch, numpy, OpenCV, pycocotools and torchvision."""
    versions, errors = stack.versions, stack.errors
    if 'pkg_resources' in errors:
        yield Finding(
            'error',
            f'setuptools {versions.get("setuptools", "is missing:")} has no pkg_resources, '
            'which mim, mmengine\'s "mmdet::" configs and the mmcv build import (gone in 82).',
            'pip install "setuptools<82"',
        )
    for name in ('torch', 'numpy', 'cv2', 'pycocotools'):
        if name not in versions:
            package = MODULES[name]
            yield Finding('error', f'{package} is not installed.', f'pip install {package}')
        elif name in errors:
            yield _broken(stack, name)
    if 'numpy_bridge' in errors:
        # until 2.3 torch was built for numpy 1
        old = _below(versions['torch'], (2, 3)) and not _below(versions['numpy'], (2, 0))
        yield Finding(
            'error',
            f'torch {versions["torch"]} cannot use numpy {versions["numpy"]} '
            f'({errors["numpy_bridge"]}).',
            'pip install "numpy<2"' if old else 'pip install --force-reinstall --no-deps numpy',
        )
    if 'torchvision' in errors:
        yield Finding(
            'error',
            f'torchvision {versions["torchvision"]} is installed and broken '
            f'({errors["torchvision"]}): mmdet fails to import beside it, and needs none.',
            'pip uninstall -y torchvision',
        )


def _broken(stack: Stack, name: str) -> Finding:
    """Describe a module that is installed and does not import."""
    reason = stack.errors[name]
    missing = re.search(r"No module named '([\w.]+)'", reason)
    command = f'pip install --force-reinstall --no-deps {MODULES[name]}'
    if missing:
        command = f'pip install {missing.group(1).split(".")[0]}'
    return Finding('error', f'{name} {stack.versions[name]} does not import ({reason}).', command)


def _diagnose_openmmlab(stack: Stack) -> Iterator[Finding]:
    """Check mmengine, mmcv with its ops, and mmdet."""
    versions, errors = stack.versions, stack.errors
    build = _build_mmcv(stack)
    if stack.distributions:
        lite = ' '.join(stack.distributions)
        yield Finding(
            'error',
            f'{lite} writes into the same folder as mmcv, whose ops are needed.',
            f'pip uninstall -y mmcv {lite} && {build}',
        )
    for name, low, high, command in (
        ('mmengine', (0, 10), (1, 0), 'pip install mmengine==0.10.7'),
        # the only versions that mmdet 3.3 accepts
        ('mmcv', (2, 0), (2, 2), build),
        ('mmdet', (3, 2), (3, 4), MMDET_INSTALL),
    ):
        if name not in versions:
            yield Finding('error', f'{name} is not installed.', command)
        elif release(versions[name]) and not low <= release(versions[name]) < high:
            limits = f'>={low[0]}.{low[1]}, <{high[0]}.{high[1]}'
            yield Finding('error', f'{name} {versions[name]} is outside of {limits}.', command)
        elif name == 'mmcv' and 'mmcv._ext' in errors and not stack.distributions:
            yield Finding(
                'error',
                f'mmcv {versions["mmcv"]} has no ops (mmcv._ext), which mmdet needs, or they were '
                f'built for another torch or Python ({errors["mmcv._ext"]}).',
                build,
            )
        elif name == 'mmcv' and 'mmcv.ops.nms' in errors:
            yield Finding(
                'error',
                f"mmcv {versions['mmcv']}'s ops were built without CUDA, or for another GPU than "
                f'the one that torch sees ({errors["mmcv.ops.nms"]}); building them needs nvcc.',
                build,
            )


def _diagnose_imports(stack: Stack) -> Iterator[Finding]:
    """Name the first package that does not import for no other reason found."""
    below = ('torch', 'torchvision', 'numpy', 'cv2', 'pycocotools')
    # What is broken below makes these fail as well: one line for the cause, none for effects.
    if not any(name in stack.errors for name in below):
        broken = [name for name in ('mmengine', 'mmcv', 'mmdet') if name in stack.errors]
        yield from (_broken(stack, name) for name in broken[:1])


def _diagnose_extras(stack: Stack) -> Iterator[Finding]:
    """Collect what training can do without."""
    versions, errors = stack.versions, stack.errors
    if 'mim' not in versions or 'mim' in errors and 'pkg_resources' not in errors:
        yield Finding(
            'warning',
            'openmim is not installed or does not import: `mim train` is not there, `python '
            'tools/train.py` is.',
            OPENMIM_INSTALL,
        )
    if 'tensorboard' not in versions or 'tensorboard' in errors:
        yield Finding(
            'warning',
            'tensorboard is not installed or does not import: configs that log to it stop.',
            'pip install tensorboard',
        )


def diagnose(stack: Stack) -> List[Finding]:
    """Say what is wrong with a stack.

    Args:
        stack (Stack): From :func:`collect`, or made up.

    Returns:
        list[Finding]: Errors first, in the order in which they should be fixed.
    """
    openmmlab = list(_diagnose_openmmlab(stack)) or list(_diagnose_imports(stack))
    return [*_diagnose_base(stack), *openmmlab, *_diagnose_extras(stack)]


def check_package() -> List[Finding]:
    """Import the parts of the package that register modules.

    Returns:
        list[Finding]: Empty, or one error.
    """
    try:
        for name in ('compat', 'datasets', 'engine', 'models', 'visualization'):
            importlib.import_module(f'mmdet_contrast.{name}')
    except Exception as error:
        return [
            Finding(
                'error',
                f'mmdet_contrast does not register its modules ({one_line(error)}).',
                'pip install --force-reinstall --no-deps mmdet_contrast',
            )
        ]
    return []


def report(stack: Stack, findings: Sequence[Finding]) -> str:
    """Write versions and findings as plain lines.

    Args:
        stack (Stack): What is installed.
        findings (Sequence[Finding]): What :func:`diagnose` says of it.

    Returns:
        str: The text, without a newline at its end.
    """
    lines = [f'{"python":<14} {stack.python}']
    for name, package in MODULES.items():
        text = stack.versions.get(name, 'not installed')
        broken = [key for key in stack.errors if key == name or key.startswith(f'{name}.')]
        if broken:
            text += f' (broken: {", ".join(broken)})'
        elif name == 'torch':
            text += f' (CUDA {stack.cuda}, {stack.gpus} GPU(s))' if stack.cuda else ' (CPU only)'
        lines.append(f'{package:<14} {text}')
    lines.append(f'{"mmdet_contrast":<14} {__version__}')
    for finding in findings:
        lines.append(f'{finding.level.upper()}: {finding.text} Fix: {finding.command}')
    errors = sum(finding.level == 'error' for finding in findings)
    lines.append(
        f'Training cannot run: {errors} problem(s) above.' if errors else 'Training can run.'
    )
    return '\n'.join(lines)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Print the report.

    Args:
        argv (Sequence[str], optional): Command line; defaults to that of the process.

    Returns:
        int: 0 when training can run, else 1.
    """
    parser = argparse.ArgumentParser(prog='python -m mmdet_contrast.doctor', description=__doc__)
    parser.add_argument(
        '--stack', action='store_true', help='check what the package stands on, not the package'
    )
    parser.add_argument('--quiet', action='store_true', help='print nothing when training can run')
    args = parser.parse_args(argv)
    stack = collect()
    findings = diagnose(stack)
    broken = any(finding.level == 'error' for finding in findings)
    if not args.stack and not broken:
        findings += check_package()
        broken = any(finding.level == 'error' for finding in findings)
    if broken or not args.quiet:
        print(report(stack, findings))
    return int(broken)
