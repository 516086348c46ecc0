"""Draw feature maps of any module of a detector, for an image or a folder of images."""

import argparse
from typing import Iterator

from torch import nn

from mmdet_contrast.visualization.detector_input import SavedPicture, run_pictures
from mmdet_contrast.visualization.feature_map import save_feature_maps


def draw(detector: nn.Module, args: argparse.Namespace) -> Iterator[SavedPicture]:
    """Draw what the command line says."""
    options = dict(topk=args.topk, channels=args.channels, overlay=not args.plain)
    return save_feature_maps(
        detector, args.inputs, args.out_dir, args.modules, args.level, **options
    )


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--topk', type=int, help='draw the strongest channels (default: the mean)')
    which.add_argument('--channels', type=int, nargs='+', help='draw these channels')
    parser.add_argument('--plain', action='store_true', help='maps alone, not on the picture')
    run_pictures(parser, draw)


if __name__ == '__main__':
    main()
