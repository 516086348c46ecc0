"""Export the backbone of a checkpoint for init_cfg=dict(type='Pretrained', checkpoint=...)."""

import argparse

from mmdet_contrast.converters.backbone import export_backbone
from mmdet_contrast.utils.config import LaunchError, load_config
from mmdet_contrast.utils.safe_loading import add_trust_option, trust_checkpoints


def main() -> None:
    """Parse the command line, export, and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='example: export_backbone.py work_dirs/simsiam_shapes/epoch_50.pth '
        'checkpoints/simsiam_shapes.pth --config configs/contrast/retina_shapes.py',
    )
    parser.add_argument('source', help='checkpoint of SimSiam, SimCLR or a detector')
    parser.add_argument('target', help='file to write: the weights of the backbone')
    parser.add_argument(
        '--prefix', default='backbone', help='name of the backbone in it (default: backbone)'
    )
    parser.add_argument(
        '--config', help='config of the detector to start from it: refuse weights that do not fit'
    )
    add_trust_option(parser)
    args = parser.parse_args()
    try:
        config = load_config(args.config) if args.config else None
        with trust_checkpoints(args.trust_checkpoint):
            print(export_backbone(args.source, args.target, args.prefix, config))
    except (LaunchError, FileNotFoundError) as error:
        raise SystemExit(f'{parser.prog}: error: {error}') from error


if __name__ == '__main__':
    main()
