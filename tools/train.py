"""Train a detector from a config file."""

import argparse
import os

from mmengine.config import DictAction

from mmdet_contrast.utils.launch import LAUNCHERS, LaunchError, shut_down, train


def parse_args() -> argparse.Namespace:
    """Parse the command line (the interface of MMDetection's own ``tools/train.py``)."""
    parser = argparse.ArgumentParser(description='Train a detector')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by the total batch size over the config's base_batch_size",
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint; without a path, from the latest in the work directory',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='config values to override, as key=value; lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by launchers'
    )
    return parser.parse_args()


def main() -> None:
    """Run the training that the command line describes."""
    args = vars(parse_args())
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank')))
    try:
        train(**args)
        shut_down()
    except LaunchError as error:
        raise SystemExit(f'train.py: error: {error}') from None


if __name__ == '__main__':
    main()
