"""Detect objects in images, folders, videos and from cameras."""

import argparse
import sys

from mmengine.config import DictAction

from mmdet_contrast.apis import infer
from mmdet_contrast.utils.config import errors_in_one_line
from mmdet_contrast.utils.safe_loading import add_trust_option


def main() -> None:
    """Parse the command line, run, and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('source', nargs='+', help='images, folders, videos, numbers of cameras')
    parser.add_argument('--out-dir', default='work_dirs/infer', help='folder for results')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score')
    parser.add_argument('--batch-size', type=int, default=1, help='pictures in a forward pass')
    parser.add_argument('--max-frames', type=int, help='most frames of a video or camera')
    parser.add_argument('--device', help='such as cuda:0 or cpu (default: the GPU if there is one)')
    parser.add_argument(
        '--no-draw', dest='draw', action='store_false', help='write no pictures and no videos'
    )
    parser.add_argument('--show', action='store_true', help='show pictures in a window; q ends it')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='config values to override, key=value'
    )
    add_trust_option(parser)
    args = parser.parse_args()
    with errors_in_one_line(parser):
        report = infer(**vars(args))
    for line in report.skipped:
        print(f'skipped: {line}', file=sys.stderr)
    print(f'{report}; results in {args.out_dir}')
    raise SystemExit(130 if report.interrupted else int(bool(report.skipped)))


if __name__ == '__main__':
    main()
