"""Draw the losses and the validation AP of one or several runs."""

import argparse

from mmdet_contrast.utils.config import errors_in_one_line
from mmdet_contrast.visualization import plot_losses


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('runs', nargs='+', metavar='RUN', help='work directory or scalars.json')
    parser.add_argument('--out', required=True, help='PNG to write')
    parser.add_argument('--keys', nargs='+', help='values to draw (default: losses and AP)')
    parser.add_argument('--smooth', type=int, default=1, help='records to average (default: 1)')
    parser.add_argument('--skip-epochs', type=int, default=0, help='epochs to leave out at first')
    args = parser.parse_args()
    with errors_in_one_line(parser):
        path = plot_losses(args.runs, args.out, args.keys, args.smooth, args.skip_epochs)
    print(f'curves in {path}')


if __name__ == '__main__':
    main()
