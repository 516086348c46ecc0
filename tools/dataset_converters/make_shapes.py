"""Make the generated data set of textured shapes."""

import argparse

from mmdet_contrast.datasets.shapes import make_shapes


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', help='folder of the data set')
    parser.add_argument('--num-classes', type=int, default=3, help='3 to 20')
    parser.add_argument('--train', type=int, default=800, help='number of training pictures')
    parser.add_argument('--val', type=int, default=100, help='number of validation pictures')
    parser.add_argument('--test', type=int, default=100, help='number of test pictures')
    parser.add_argument('--new', type=int, default=0, help='number of pictures of a split "new"')
    parser.add_argument(
        '--size', type=int, nargs='+', default=[128], help='side, or width and height, in pixels'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--shots', type=int, nargs='*', help='few-shot sets to make, by default 5 and 10'
    )
    return parser.parse_args()


def main() -> None:
    """Make the data set and print where its annotation files are."""
    args = parse_args()
    counts = {'train': args.train, 'new': args.new, 'val': args.val, 'test': args.test}
    paths = make_shapes(
        args.out_dir,
        num_images={split: count for split, count in counts.items() if count},
        num_classes=args.num_classes,
        image_size=args.size[0] if len(args.size) == 1 else tuple(args.size),
        seed=args.seed,
        shots=args.shots,
        progress=True,
    )
    for name, path in paths.items():
        print(f'{name}: {path}')


if __name__ == '__main__':
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f'make_shapes.py: error: {error}') from None
