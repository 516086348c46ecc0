"""Convert text annotations (class cx cy w h, one box a line) to COCO JSON."""

import argparse

from mmdet_contrast.converters.coco import run_converter
from mmdet_contrast.converters.txt import txt_to_coco


def main() -> None:
    """Parse the command line, convert, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ann_dir', help='folder of the text files')
    parser.add_argument('img_dir', help='folder of the images')
    parser.add_argument('out_json', help='COCO file to write')
    parser.add_argument(
        '--normalized', action='store_true', help='numbers are shares of the image, not pixels'
    )
    run_converter(parser, txt_to_coco, split_help='a text file of image names')


if __name__ == '__main__':
    main()
