"""Draw what a detector's scores rest on: Grad-CAM and other heat maps, of a box or a class."""

import argparse
from typing import Iterator

from torch import nn

from mmdet_contrast.visualization.cam import METHODS
from mmdet_contrast.visualization.cam_pictures import save_cams
from mmdet_contrast.visualization.detector_input import SavedPicture, run_pictures


def draw(detector: nn.Module, args: argparse.Namespace) -> Iterator[SavedPicture]:
    """Draw what the command line says."""
    names = ('modules', 'level', 'method', 'boxes', 'class_name', 'score_thr')
    options = {name: getattr(args, name) for name in names}
    return save_cams(detector, args.inputs, args.out_dir, **options)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--method',
        choices=METHODS,
        default='hires-cam',
        help='how channels are weighted (default: hires-cam)',
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        '--box',
        dest='boxes',
        type=int,
        nargs='+',
        default=[0],
        metavar='INDEX',
        help='explain these detections, counted from the surest (default: 0)',
    )
    what.add_argument(
        '--class',
        dest='class_name',
        metavar='NAME',
        help='explain this class: all its detections, or its strongest',
    )
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score (default: 0.3)')
    run_pictures(parser, draw)


if __name__ == '__main__':
    main()
