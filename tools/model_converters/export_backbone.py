"""Export the backbone of a checkpoint for init_cfg=dict(type='Pretrained', checkpoint=...)."""

import argparse

from mmdet_contrast.utils.export_backbone import export_backbone
from mmdet_contrast.utils.launch import load_config


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='example: export_backbone.py work_dirs/simsiam_shapes/epoch_50.pth '
        'checkpoints/simsiam_shapes.pth --config configs/retina_shapes.py',
    )
    parser.add_argument('source', help='checkpoint of SimSiam, SimCLR or a detector')
    parser.add_argument('target', help='file to write: the weights of the backbone')
    parser.add_argument(
        '--prefix', default='backbone', help='name of the backbone in it (default: backbone)'
    )
    parser.add_argument(
        '--config', help='config of the detector to start from it: refuse weights that do not fit'
    )
    return parser.parse_args()


def main() -> None:
    """Export, and print the report."""
    args = parse_args()
    config = load_config(args.config) if args.config else None
    print(export_backbone(args.source, args.target, args.prefix, config))


if __name__ == '__main__':
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f'export_backbone.py: error: {error}') from None
