"""Export the backbone of a checkpoint for init_cfg=dict(type='Pretrained', checkpoint=...)."""

import argparse

from mmdet_contrast.converters.keys import export_backbone
from mmdet_contrast.utils.config import errors_in_one_line
from mmdet_contrast.utils.safe_loading import add_trust_option, trust_checkpoints


def main() -> None:
    """Parse the command line, export, and print the number of weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint of SimSiam, SimCLR or a detector')
    parser.add_argument('target', help='file to write: the weights of the backbone')
    parser.add_argument(
        '--prefix', default='backbone', help='name of the backbone in it (default: backbone)'
    )
    add_trust_option(parser)
    args = parser.parse_args()
    with errors_in_one_line(parser), trust_checkpoints(args.trust_checkpoint):
        number = export_backbone(args.source, args.target, args.prefix)
    print(f'{args.target}: {number} weights of the backbone')


if __name__ == '__main__':
    main()
