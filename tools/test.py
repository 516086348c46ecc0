"""Evaluate a checkpoint with a config file."""

import argparse

from mmdet_contrast.apis import test
from mmdet_contrast.apis.launch import run_launch


def main() -> None:
    """Parse the command line (the interface of MMDetection's own ``tools/test.py``) and run."""
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
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    run_launch(parser, test)


if __name__ == '__main__':
    main()
