"""Draw ground truth and detections of test images on one sheet."""

import argparse

from mmdet_contrast.visualization import save_detection_sheet


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file whose test set was evaluated')
    parser.add_argument('predictions', help='pickle file written by test.py --out')
    parser.add_argument('--out', required=True, help='PNG to write')
    parser.add_argument('--num', type=int, default=8, help='number of images (default: 8)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score (default: 0.3)')
    args = parser.parse_args()
    try:
        path = save_detection_sheet(
            args.config, args.predictions, args.out, args.num, score_thr=args.score_thr
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f'draw_detections.py: error: {error}') from None
    print(f'detections in {path}')


if __name__ == '__main__':
    main()
