"""The command line that the converters share."""

import argparse
from typing import Callable

from ._reading import MISSING_ANNOTATIONS
from .report import ConversionReport

__all__ = ['run_converter']


def run_converter(
    parser: argparse.ArgumentParser, convert: Callable[..., ConversionReport], split_help: str
) -> None:
    """Add the options that every converter has, convert, and print the report.

    Ends the process with one line and exit status 1 where the conversion cannot be done.

    Args:
        parser (argparse.ArgumentParser): Parser with the converter's own arguments, named as the
            parameters of ``convert``.
        convert (Callable[..., ConversionReport]): The converter; gets every argument by keyword.
        split_help (str): What ``--split`` takes.
    """
    parser.add_argument('--classes', nargs='+', help='class names in order; default: those found')
    parser.add_argument('--split', help=split_help)
    parser.add_argument('--min-size', type=float, default=0, help='smaller boxes are ignored')
    parser.add_argument(
        '--no-clip', dest='clip', action='store_false', help='leave boxes beyond the picture'
    )
    parser.add_argument('--missing-annotations', choices=MISSING_ANNOTATIONS, default='leave_out')
    parser.add_argument(
        '--no-verify', dest='verify_images', action='store_false', help='read image headers only'
    )
    parser.add_argument('--strict', action='store_true', help='stop at the first problem')
    parser.add_argument(
        '--report',
        dest='report_json',
        metavar='REPORT',
        help='also write the whole report to this JSON file',
    )
    args = vars(parser.parse_args())
    try:
        report = convert(**args)
    except (ValueError, OSError) as error:
        raise SystemExit(f'{parser.prog}: error: {error}') from None
    print(report)
