"""Detect objects in images, folders, videos and from cameras."""

import argparse

from mmdet_contrast.utils.cfg_options import CfgOptions
from mmdet_contrast.utils.stream_inference import infer


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        'source', nargs='+', help='images, folders, patterns, videos, or numbers of cameras'
    )
    parser.add_argument(
        '--out-dir', default='work_dirs/infer', help='folder for results (default: %(default)s)'
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least score (default: %(default)s)'
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, help='pictures in a forward pass (default: 1)'
    )
    parser.add_argument('--recursive', action='store_true', help='folders with those below them')
    parser.add_argument(
        '--every', type=int, default=1, help='of videos and cameras: every n-th frame'
    )
    parser.add_argument(
        '--max-frames', type=int, help='of a video or camera: end after so many frames'
    )
    parser.add_argument('--device', help='such as cuda:0 or cpu (default: the GPU if there is one)')
    parser.add_argument('--no-draw', action='store_true', help='write no pictures and no videos')
    parser.add_argument('--no-json', action='store_true', help='write no JSON')
    parser.add_argument('--show', action='store_true', help='show pictures in a window; q ends it')
    parser.add_argument('--no-progress', action='store_true', help='show no progress')
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, help='config values to override, key=value'
    )
    return parser.parse_args()


def main() -> None:
    """Run, and say what was done and what was skipped."""
    args = vars(parse_args())
    for key in ('draw', 'json', 'progress'):
        args['save_json' if key == 'json' else key] = not args.pop(f'no_{key}')
    try:
        report = infer(**args)
    except (ValueError, OSError) as error:
        raise SystemExit(f'infer.py: error: {error}') from None
    for line in report.skipped:
        print(f'skipped: {line}')
    print(f'{report}; results in {args["out_dir"]}')
    raise SystemExit(report.exit_status)


if __name__ == '__main__':
    main()
