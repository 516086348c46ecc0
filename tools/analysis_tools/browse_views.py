"""Draw training samples of a config: the original, its contrastive view, boxes, which take part.

A config without contrastive views is drawn with its boxes alone.
"""

import argparse

from mmengine.config import DictAction

from mmdet_contrast.utils.config import errors_in_one_line, load_config
from mmdet_contrast.visualization import save_view_pairs


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file with a training set')
    parser.add_argument('--out-dir', required=True, help='folder for the pictures')
    parser.add_argument('--num', type=int, default=8, help='number of samples (default: 8)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the pipeline (default: 0)')
    parser.add_argument(
        '--clean', action='store_true', help='put the images without boxes beside those with them'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value')
    args = parser.parse_args()
    with errors_in_one_line(parser):
        config = load_config(args.config, cfg_options=args.cfg_options)
        paths = save_view_pairs(config, args.out_dir, args.num, args.seed, args.clean)
    print(f'{len(paths)} pictures in {args.out_dir}')


if __name__ == '__main__':
    main()
