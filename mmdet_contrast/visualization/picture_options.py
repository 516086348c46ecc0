"""The command line that the programs which look inside a detector share."""

import argparse
from typing import Callable, Iterator

from torch import nn

from mmdet_contrast.utils.cfg_options import CfgOptions
from mmdet_contrast.utils.stream_writers import prepare_folder
from mmdet_contrast.visualization.detector_input import SavedPicture, load_detector


def run_pictures(
    parser: argparse.ArgumentParser,
    draw: Callable[[nn.Module, argparse.Namespace], Iterator[SavedPicture]],
) -> None:
    """Add the options of detector, images and pictures, and draw.

    Prints a line for each picture. Ends the process with one line and exit status 1 where something
    cannot be used, and with exit status 1 at the end where an image could not be read.

    Args:
        parser (argparse.ArgumentParser): Parser with the program's own arguments.
        draw (Callable): Gets the detector and all arguments, and yields what became of each
            picture.
    """
    parser.add_argument('config', help='config file of the detector')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('inputs', help='image, or folder of images')
    parser.add_argument('--out-dir', required=True, help='folder for the pictures')
    parser.add_argument(
        '--modules',
        nargs='+',
        default=['neck'],
        metavar='PATH',
        help='dotted paths, e.g. backbone.layer3 neck.fpn_convs.0 (default: neck)',
    )
    parser.add_argument(
        '--level', type=int, help='which map of a module that gives several (default: all)'
    )
    parser.add_argument(
        '--min-side', type=int, default=480, help='enlarge smaller images (default: 480 pixels)'
    )
    parser.add_argument(
        '--alpha', type=float, default=0.5, help='share of the map in the picture (default: 0.5)'
    )
    parser.add_argument('--device', help='e.g. cpu or cuda:1 (default: a GPU if there is one)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='config values to override, as key=value; lists as key="[a,b]" or key=a,b',
    )
    args = parser.parse_args()
    written, unreadable = 0, 0
    try:
        prepare_folder(args.out_dir)
        detector = load_detector(args.config, args.checkpoint, args.device, args.cfg_options)
        for saved in draw(detector, args):
            print(f'{saved.out_file or saved.image}: {saved.note}', flush=True)
            written += saved.out_file is not None
            unreadable += not saved.readable
    except (ValueError, OSError) as error:
        raise SystemExit(f'{parser.prog}: error: {error}') from None
    print(f'{written} pictures in {args.out_dir}')
    if unreadable:
        raise SystemExit(1)
