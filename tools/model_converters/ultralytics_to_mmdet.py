"""Convert Ultralytics YOLOv8 weights to a checkpoint for YOLOv8Detector."""

import argparse

from mmdet_contrast.utils.launch import load_config
from mmdet_contrast.utils.plain_forward import build_detector
from mmdet_contrast.utils.ultralytics import PARTS
from mmdet_contrast.utils.ultralytics_checkpoint import convert_ultralytics_checkpoint


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='plain state_dict, or their .pt if ultralytics is here')
    parser.add_argument('target', help='checkpoint to write')
    parser.add_argument('--parts', choices=list(PARTS), default='model', help='what to convert')
    parser.add_argument(
        '--config',
        help='config of the model to load into: shapes are compared with it, and the class head is '
        'left out if the numbers of classes differ',
    )
    parser.add_argument('--list', action='store_true', help='also print every mapped key')
    return parser.parse_args()


def main() -> None:
    """Convert, and print the report."""
    args = parse_args()
    model = build_detector(load_config(args.config)) if args.config else None
    report = convert_ultralytics_checkpoint(args.source, args.target, args.parts, model)
    if args.list:
        for theirs, ours in report.mapped.items():
            print(f'{theirs} -> {ours}')
    print(report)


if __name__ == '__main__':
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f'ultralytics_to_mmdet.py: error: {error}') from None
