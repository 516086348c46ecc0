"""The command line that the programs for training and testing share."""

import argparse
import os
from typing import Any, Callable

from mmengine.config import DictAction

from .launch_checks import LaunchError
from .launch_distributed import LAUNCHERS, shut_down

__all__ = ['run_launch']


class _CfgOptions(DictAction):
    """MMEngine's ``--cfg-options``, with a sentence where a value is not ``key=value``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: Any = None,
    ) -> None:
        for value in values:
            if '=' not in value:
                parser.error(
                    f'argument {option_string}: got {value!r}, expected key=value (quote a value '
                    'that holds blanks).'
                )
        super().__call__(parser, namespace, values, option_string)


def run_launch(parser: argparse.ArgumentParser, entry: Callable[..., Any]) -> None:
    """Add the options that training and testing share, and run one of them.

    Ends the process with one line and exit status 1 where the run cannot start.

    Args:
        parser (argparse.ArgumentParser): Parser with the program's own arguments, named as the
            parameters of ``entry``.
        entry (Callable): ``mmdet_contrast.utils.launch.train`` or ``test``; gets every argument by
            keyword.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_CfgOptions,
        help='config values to override, as key=value; lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by launchers'
    )
    args = vars(parser.parse_args())
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank')))
    try:
        entry(**args)
        shut_down()
    except LaunchError as error:
        raise SystemExit(f'{parser.prog}: error: {error}') from None
