"""Evaluate a checkpoint with a config file."""

import argparse
import os

from mmengine.config import DictAction

from mmdet_contrast.utils.launch import LAUNCHERS, LaunchError, shut_down, test


def parse_args() -> argparse.Namespace:
    """Parse the command line (the interface of MMDetection's own ``tools/test.py``)."""
    parser = argparse.ArgumentParser(description='Test (and evaluate) a detector')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--work-dir', help='folder for the metrics')
    parser.add_argument('--out', help='pickle file to write the predictions to')
    parser.add_argument('--show', action='store_true', help='show the pictures in a window')
    parser.add_argument(
        '--show-dir', help='folder for the drawn pictures (relative: in WORK_DIR/TIME_STAMP)'
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show a picture')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='config values to override, as key=value; lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by launchers'
    )
    return parser.parse_args()


def main() -> None:
    """Run the evaluation that the command line describes."""
    args = vars(parse_args())
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank')))
    try:
        test(**args)
        shut_down()
    except LaunchError as error:
        raise SystemExit(f'test.py: error: {error}') from None


if __name__ == '__main__':
    main()
