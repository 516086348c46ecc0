"""Write a part of a COCO annotation file: some classes, some pictures."""

import argparse

from mmdet_contrast.converters.subset import subset_coco
from mmdet_contrast.utils.config import errors_in_one_line


def main() -> None:
    """Parse the command line, write, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ann_file', help='COCO annotations')
    parser.add_argument('out', help='file to write')
    parser.add_argument('--classes', nargs='+', help='names of the classes to keep (default: all)')
    parser.add_argument('--num-images', type=int, help='number of pictures to draw (default: all)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw (default: 0)')
    parser.add_argument('--without', help='COCO annotations whose pictures are left out')
    args = parser.parse_args()
    with errors_in_one_line(parser):
        counts = subset_coco(**vars(args))
    print(f'{args.out}: {counts["images"]} images, {counts["annotations"]} annotations')


if __name__ == '__main__':
    main()
