"""Write a COCO annotation file and its images as tar shards, which ShardDataset reads."""

import argparse

from mmdet_contrast.converters.shards import coco_to_shards
from mmdet_contrast.utils.config import errors_in_one_line


def main() -> None:
    """Parse the command line, write, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ann_file', help='COCO annotations')
    parser.add_argument('img_dir', help='folder of the images')
    parser.add_argument('out_dir', help='folder to write, without shards so far')
    parser.add_argument(
        '--shard-size', type=int, default=1000, help='images in a shard (default: 1000)'
    )
    args = parser.parse_args()
    with errors_in_one_line(parser):
        counts = coco_to_shards(args.ann_file, args.img_dir, args.out_dir, args.shard_size)
    print(f'{args.out_dir}: {counts["images"]} images in {counts["shards"]} shards')


if __name__ == '__main__':
    main()
