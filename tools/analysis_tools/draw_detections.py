"""Draw ground truth and detections of test images on one sheet."""

import argparse

from mmengine.config import DictAction

from mmdet_contrast.utils.config import errors_in_one_line, load_config
from mmdet_contrast.visualization import save_detection_sheet


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file whose test set was evaluated')
    parser.add_argument('predictions', help='pickle file written by test.py --out')
    parser.add_argument('--out', required=True, help='PNG to write')
    parser.add_argument('--num', type=int, default=8, help='number of images (default: 8)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score (default: 0.3)')
    parser.add_argument(
        '--iou-thr', type=float, default=0.5, help='least IoU of a correct detection (default: 0.5)'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value')
    args = parser.parse_args()
    with errors_in_one_line(parser):
        config = load_config(args.config, cfg_options=args.cfg_options)
        path = save_detection_sheet(
            config, args.predictions, args.out, args.num, args.score_thr, args.iou_thr
        )
    print(f'detections in {path}')


if __name__ == '__main__':
    main()
