"""Make the generated data set of textured shapes."""

import argparse

from shapes import SHAPES_CLASSES, make_shapes

COUNTS = dict(train=800, new=0, val=100, test=100)


def main() -> None:
    """Parse the command line, make the data set, and print where its annotation files are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', help='folder of the data set')
    parser.add_argument(
        '--num-classes',
        type=int,
        choices=range(3, len(SHAPES_CLASSES) + 1),
        default=3,
        metavar='N',
        help='number of classes, 3 to 20 (default: 3)',
    )
    for split, count in COUNTS.items():
        parser.add_argument(
            f'--{split}',
            type=int,
            default=count,
            metavar='N',
            help=f'number of pictures of the split {split!r}; 0 makes none (default: {count})',
        )
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        default=[128],
        help='side, or width and height, in pixels (default: 128)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the data set (default: 0)')
    args = parser.parse_args()
    counts = {split: getattr(args, split) for split in COUNTS}
    try:
        paths = make_shapes(
            args.out_dir,
            num_images={split: count for split, count in counts.items() if count},
            num_classes=args.num_classes,
            image_size=args.size[0] if len(args.size) == 1 else tuple(args.size),
            seed=args.seed,
        )
    except FileExistsError as error:
        raise SystemExit(f'{parser.prog}: error: {error}') from error
    for name, path in paths.items():
        print(f'{name}: {path}')


if __name__ == '__main__':
    main()
