"""The command line that the programs for training and testing share."""

import argparse
import os
from typing import Any, Callable

from .cfg_options import CfgOptions
from .launch_checks import LaunchError
from .launch_distributed import LAUNCHERS, shut_down

__all__ = ['run_launch']


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
        action=CfgOptions,
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
