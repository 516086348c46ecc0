"""Convert PASCAL VOC XML annotations to COCO JSON."""

import argparse

from mmdet_contrast.datasets.converters import voc_to_coco


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='VOC root (with Annotations), or a folder of XML files')
    parser.add_argument('out_json', help='COCO file to write')
    parser.add_argument('--classes', nargs='+', help='class names in order; default: those found')
    parser.add_argument('--split', help='name in ImageSets/Main, or a text file of image names')
    parser.add_argument('--img-dir', help='folder of the images; default: JPEGImages of the root')
    parser.add_argument('--difficult', choices=['ignore', 'keep', 'drop'], default='ignore')
    parser.add_argument(
        '--convention',
        choices=['minus_one', 'inclusive', 'zero_based'],
        default='minus_one',
        help="how pixels are counted; the default equals MMDetection's own XMLDataset",
    )
    parser.add_argument('--min-size', type=float, default=0, help='smaller boxes are ignored')
    parser.add_argument('--no-clip', action='store_true', help='leave boxes beyond the picture')
    parser.add_argument(
        '--missing-annotations', choices=['leave_out', 'empty'], default='leave_out'
    )
    parser.add_argument('--no-verify', action='store_true', help='read image headers only')
    parser.add_argument('--strict', action='store_true', help='stop at the first problem')
    parser.add_argument('--report', help='also write the whole report to this JSON file')
    return parser.parse_args()


def main() -> None:
    """Convert, and print the report."""
    args = parse_args()
    report = voc_to_coco(
        args.source,
        args.out_json,
        classes=args.classes,
        split=args.split,
        img_dir=args.img_dir,
        difficult=args.difficult,
        convention=args.convention,
        min_size=args.min_size,
        clip=not args.no_clip,
        missing_annotations=args.missing_annotations,
        verify_images=not args.no_verify,
        strict=args.strict,
        report_json=args.report,
    )
    print(report)


if __name__ == '__main__':
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f'voc_to_coco.py: error: {error}') from None
