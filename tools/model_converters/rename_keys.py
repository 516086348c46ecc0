"""Strip, replace and select prefixes of the keys in a checkpoint."""

import argparse
from typing import Tuple

from mmdet_contrast.converters.keys import rename_checkpoint
from mmdet_contrast.utils.config import errors_in_one_line
from mmdet_contrast.utils.safe_loading import add_trust_option, trust_checkpoints


def old_and_new(text: str) -> Tuple[str, str]:
    """Split ``old=new``."""
    old, new = text.split('=')
    return old, new


def main() -> None:
    """Parse the command line, rename, and print what became of each key."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='example: rename_keys.py in.pth out.pth --strip module. --map student=backbone',
    )
    parser.add_argument('source', help='checkpoint, or file of a plain state_dict')
    parser.add_argument('target', help='checkpoint to write: the weights and meta')
    parser.add_argument(
        '--strip', nargs='+', default=[], metavar='PREFIX', help='prefixes to take off'
    )
    parser.add_argument(
        '--map',
        nargs='+',
        default=[],
        type=old_and_new,
        metavar='OLD=NEW',
        help='prefixes to replace',
    )
    parser.add_argument(
        '--keep', nargs='+', default=[], metavar='PREFIX', help='keep these only (new names)'
    )
    add_trust_option(parser)
    args = parser.parse_args()
    with errors_in_one_line(parser), trust_checkpoints(args.trust_checkpoint):
        moved = rename_checkpoint(args.source, args.target, args.strip, dict(args.map), args.keep)
    for old, new in moved.items():
        if new != old:
            print(f'{old} -> {new}' if new else f'dropped {old}')
    print(f'{args.target}: {sum(new is not None for new in moved.values())} weights')


if __name__ == '__main__':
    main()
