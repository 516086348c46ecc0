"""Convert PASCAL VOC XML annotations to COCO JSON."""

import argparse

from mmdet_contrast.converters.coco import run_converter
from mmdet_contrast.converters.voc import voc_to_coco


def main() -> None:
    """Parse the command line, convert, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='VOC root (with Annotations), or a folder of XML files')
    parser.add_argument('out_json', help='COCO file to write')
    parser.add_argument('--img-dir', help='folder of the images (default: JPEGImages of the root)')
    parser.add_argument(
        '--difficult',
        choices=['ignore', 'keep'],
        default='ignore',
        help='write difficult objects as ignored (default) or as ordinary ones',
    )
    parser.add_argument(
        '--convention',
        choices=['minus_one', 'inclusive', 'zero_based'],
        default='minus_one',
        help="how pixels are counted (default: as MMDetection's XMLDataset does)",
    )
    run_converter(
        parser, voc_to_coco, split_help='name in ImageSets/Main, or a text file of image names'
    )


if __name__ == '__main__':
    main()
