"""Convert text annotations (class cx cy w h, one box a line) to COCO JSON."""

import argparse

from mmdet_contrast.datasets.converters import txt_to_coco


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ann_dir', help='folder of the text files')
    parser.add_argument('img_dir', help='folder of the images')
    parser.add_argument('out_json', help='COCO file to write')
    parser.add_argument('--classes', nargs='+', help='class names in order; default: those found')
    parser.add_argument('--split', help='a text file of image names')
    parser.add_argument('--normalized', action='store_true', help='numbers are shares, not pixels')
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
    report = txt_to_coco(
        args.ann_dir,
        args.img_dir,
        args.out_json,
        classes=args.classes,
        split=args.split,
        normalized=args.normalized,
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
        raise SystemExit(f'txt_to_coco.py: error: {error}') from None
