"""Convert Ultralytics YOLOv8 weights to a checkpoint for YOLOv8Detector."""

import argparse

from mmdet_contrast.converters.ultralytics import PARTS, convert_ultralytics_checkpoint
from mmdet_contrast.utils.config import errors_in_one_line
from mmdet_contrast.utils.safe_loading import add_trust_option, trust_checkpoints


def main() -> None:
    """Parse the command line, convert, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source',
        help='file of a plain state_dict; their .pt only where ultralytics is installed, and with '
        '--trust-checkpoint',
    )
    parser.add_argument('target', help='checkpoint to write')
    parser.add_argument(
        '--parts', choices=list(PARTS), default='model', help='what to convert (default: model)'
    )
    parser.add_argument('--list', action='store_true', help='also print every mapped key')
    add_trust_option(parser)
    args = parser.parse_args()
    with errors_in_one_line(parser), trust_checkpoints(args.trust_checkpoint):
        names = convert_ultralytics_checkpoint(args.source, args.target, args.parts)
    mapped = {theirs: ours for theirs, ours in names.items() if ours is not None}
    if args.list:
        for theirs, ours in mapped.items():
            print(f'{theirs} -> {ours}')
    print(f'{len(mapped)} keys mapped, {len(names) - len(mapped)} skipped')


if __name__ == '__main__':
    main()
