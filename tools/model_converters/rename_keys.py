"""Strip, replace and select prefixes of the keys in a checkpoint."""

import argparse
from typing import Tuple

from mmdet_contrast.utils.rename_keys import rename_checkpoint


def old_and_new(text: str) -> Tuple[str, str]:
    """Split ``old=new``."""
    old, equals, new = text.partition('=')
    if not equals or not old:
        raise argparse.ArgumentTypeError(f'{text!r} is not of the form old=new')
    return old, new


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='example: rename_keys.py in.pth out.pth --strip module. --map student=backbone',
    )
    parser.add_argument('source', help='checkpoint, or file of a plain state_dict')
    parser.add_argument('target', help='checkpoint to write: the weights and meta')
    parser.add_argument('--strip', nargs='+', default=[], metavar='PREFIX', help='take these off')
    parser.add_argument(
        '--map', nargs='+', default=[], type=old_and_new, metavar='OLD=NEW', help='replace prefixes'
    )
    parser.add_argument(
        '--keep', nargs='+', default=[], metavar='PREFIX', help='keep only these (new names)'
    )
    args = parser.parse_args()
    if len(dict(args.map)) < len(args.map):
        parser.error('--map names the same old prefix twice')
    return args


def main() -> None:
    """Rename, and print the report."""
    args = parse_args()
    print(rename_checkpoint(args.source, args.target, args.strip, dict(args.map), args.keep))


if __name__ == '__main__':
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f'rename_keys.py: error: {error}') from None
