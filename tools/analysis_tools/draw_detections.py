"""Draw ground truth and detections of test images, on one sheet or in a picture for each image."""

import argparse

from mmengine.config import DictAction

from mmdet_contrast.utils.config import LaunchError, load_config
from mmdet_contrast.visualization import save_detection_pictures, save_detection_sheet


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file whose test set was evaluated')
    parser.add_argument('predictions', help='pickle file written by test.py --out')
    parser.add_argument('--out', help='PNG to write: several images on one sheet')
    parser.add_argument('--out-dir', help='folder to write to: one picture for each image')
    parser.add_argument('--num', type=int, help='number of images (default: 8 on a sheet, or all)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score (default: 0.3)')
    parser.add_argument(
        '--iou-thr', type=float, default=0.5, help='least IoU of a correct detection (default: 0.5)'
    )
    parser.add_argument(
        '--min-side', type=int, default=640, help='enlarge smaller images (default: 640 pixels)'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value')
    args = parser.parse_args()
    if not (args.out or args.out_dir):
        parser.error('give --out for a sheet, --out-dir for a picture of each image, or both.')
    common = dict(score_thr=args.score_thr, min_side=args.min_side, iou_thr=args.iou_thr)
    try:
        config = load_config(args.config, cfg_options=args.cfg_options)
        if args.out:
            path = save_detection_sheet(
                config, args.predictions, args.out, num=args.num or 8, **common
            )
            print(f'detections in {path}')
        if args.out_dir:
            paths = save_detection_pictures(
                config, args.predictions, args.out_dir, num=args.num, **common
            )
            print(f'{len(paths)} pictures in {args.out_dir}')
    except (LaunchError, OSError) as error:
        raise SystemExit(f'draw_detections.py: error: {error}') from None


if __name__ == '__main__':
    main()
