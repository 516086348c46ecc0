"""Count the parameters and operations of a config's model."""

import argparse

from mmdet_contrast.utils.cfg_options import CfgOptions
from mmdet_contrast.utils.complexity import config_complexity


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(640, 640),
        metavar=('H', 'W'),
        help='size of the image in pixels (default: 640 640)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='config values to override, as key=value; lists as key="[a,b]" or key=a,b',
    )
    args = parser.parse_args()
    try:
        print(config_complexity(args.config, args.shape, args.cfg_options))
    except ValueError as error:
        raise SystemExit(f'get_flops.py: error: {error}') from None


if __name__ == '__main__':
    main()
