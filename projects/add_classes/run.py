"""Train a teacher and every way of adding classes to it, and print the table."""

import argparse

from mmengine.config import DictAction
from protocol import format_table, run_protocol

from mmdet_contrast.utils.config import errors_in_one_line


def main() -> None:
    """Parse the command line, run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help="the teacher's")
    parser.add_argument(
        '--ann', required=True, help='COCO file of pictures that annotate the new classes'
    )
    parser.add_argument('--img-dir', required=True, help='folder of its pictures')
    parser.add_argument('--classes', nargs='+', required=True, help='names of the new classes')
    parser.add_argument(
        '--val', required=True, help='COCO file to evaluate on, which annotates all classes'
    )
    parser.add_argument('--val-img-dir', help='folder of its pictures, if not --img-dir')
    parser.add_argument('--old-ann', help='COCO file of the old pictures, for joint')
    parser.add_argument('--old-img-dir', help='folder of its pictures, if not --img-dir')
    parser.add_argument('--replay', help='COCO file of a few old pictures, for replay')
    parser.add_argument('--replay-img-dir', help='folder of its pictures, if not --img-dir')
    parser.add_argument('--checkpoint', help='weights of a teacher that is trained already')
    parser.add_argument('--work-dir', required=True, help='what is there is not run again')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--variants', nargs='+', help='best finetune cwd_kl joint replay; by default all'
    )
    parser.add_argument('--jobs', type=int, default=1, help='processes at a time')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='for every run')
    args = parser.parse_args()
    with errors_in_one_line(parser):
        print(format_table(*run_protocol(**vars(args))))


if __name__ == '__main__':
    main()
