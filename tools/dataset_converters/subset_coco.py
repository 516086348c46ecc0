"""Write a part of a COCO annotation file: some classes, some pictures."""

import argparse

from mmdet_contrast.datasets.converters import subset_coco


def main() -> None:
    """Parse the command line, write, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ann_file', help='COCO annotations')
    parser.add_argument('out_json', help='file to write')
    parser.add_argument('--classes', nargs='+', help='names to keep, by default all')
    parser.add_argument('--num-images', type=int, help='drawn at random, by default all')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    counts = subset_coco(args.ann_file, args.out_json, args.classes, args.num_images, args.seed)
    print(f'{args.out_json}: {counts["images"]} images, {counts["annotations"]} annotations')


if __name__ == '__main__':
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f'subset_coco.py: error: {error}') from None
