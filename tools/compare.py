"""Train and evaluate configs with several seeds, and compare them with the first one."""

import argparse
from typing import Any

from mmengine.config import DictAction

from mmdet_contrast.apis import compare
from mmdet_contrast.utils.config import errors_in_one_line


class VariantAction(DictAction):
    """Takes ``NAME CONFIG [key=value ...]``, repeatedly."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: Any = None,
    ) -> None:
        """Take the values of the option; called by ``argparse``."""
        name, *rest = values
        variants = dict(getattr(namespace, self.dest) or {})
        if not rest or name in variants:
            parser.error(
                f'argument {option_string}: a new NAME and a CONFIG expected, got {values}.'
            )
        options = argparse.Namespace()
        super().__call__(parser, options, rest[1:], option_string)
        variants[name] = (rest[0], getattr(options, self.dest))
        setattr(namespace, self.dest, variants)


def main() -> None:
    """Parse the command line, run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='config files')
    parser.add_argument(
        '--variant',
        dest='variants',
        nargs='+',
        action=VariantAction,
        metavar='NAME CONFIG key=value',
        help='one more config, under a name and with options of its own; may be repeated',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--jobs', type=int, default=1, help='processes at a time')
    parser.add_argument(
        '--work-dir', default='work_dirs/compare', help='what has finished there is not run again'
    )
    parser.add_argument('--split', choices=['val', 'test'], default='val', help='evaluate on this')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='for every run')
    args = parser.parse_args()
    with errors_in_one_line(parser):
        print(compare(**vars(args)).to_markdown())


if __name__ == '__main__':
    main()
