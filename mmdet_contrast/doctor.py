"""Looks at the installed stack and says how to mend what is known to break.

``python -m mmdet_contrast.doctor`` prints what is installed and, for each breakage it finds, one
line with the command that mends it. Its exit status is 0 only when training can run.
"""

import argparse
import importlib
import sys
from typing import List, Optional, Sequence

from .doctor_rules import Finding, diagnose, release
from .doctor_stack import MODULES, Stack, collect, one_line
from .version import __version__

__all__ = [
    'Finding',
    'Stack',
    'check_package',
    'collect',
    'diagnose',
    'main',
    'release',
    'report',
]


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
    versions = dict(stack.versions)
    lines = [f'{"python":<14} {stack.python}']
    for name, package in MODULES.items():
        text = versions.get(name, 'not installed')
        if name == 'torch' and name in versions:
            text += f' (CUDA {stack.cuda}, {stack.gpus} GPU(s))' if stack.cuda else ' (CPU only)'
        if name == 'mmcv' and name in versions:
            broken = 'mmcv._ext' in stack.errors or 'mmcv' in stack.errors
            text += ' (ops missing)' if broken else ' (with ops)'
        elif name in stack.errors:
            text += ' (broken)'
        lines.append(f'{package:<14} {text}')
    lines.append(f'{"mmdet_contrast":<14} {__version__}')
    for finding in findings:
        mend = f' Mend: {finding.command}' if finding.command else ''
        lines.append(f'{finding.level.upper()}: {finding.text}{mend}')
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


if __name__ == '__main__':
    sys.exit(main())
