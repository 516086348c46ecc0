"""Convert PASCAL VOC XML annotations to COCO JSON."""

import argparse

from mmdet_contrast.datasets.converters import voc_to_coco
from mmdet_contrast.datasets.converters.options import run_converter


def main() -> None:
    """Parse the command line, convert, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='VOC root (with Annotations), or a folder of XML files')
    parser.add_argument('out_json', help='COCO file to write')
    parser.add_argument('--img-dir', help='folder of the images; default: JPEGImages of the root')
    parser.add_argument('--difficult', choices=['ignore', 'keep', 'drop'], default='ignore')
    parser.add_argument(
        '--convention',
        choices=['minus_one', 'inclusive', 'zero_based'],
        default='minus_one',
        help="how pixels are counted; the default equals MMDetection's own XMLDataset",
    )
    run_converter(
        parser, voc_to_coco, split_help='name in ImageSets/Main, or a text file of image names'
    )


if __name__ == '__main__':
    main()
