"""Train a detector from a config file."""

import argparse

from mmdet_contrast.apis import train
from mmdet_contrast.apis.launch import run_launch


def main() -> None:
    """Parse the command line (the interface of MMDetection's own ``tools/train.py``) and run."""
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
    run_launch(parser, train)


if __name__ == '__main__':
    main()
