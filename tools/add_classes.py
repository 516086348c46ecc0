"""Train a teacher and every way of adding classes to it, and print the table."""

import argparse

from mmdet_contrast.apis.add_classes_protocol import format_table, run_protocol
from mmdet_contrast.utils.cfg_options import CfgOptions


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', help='holds <folder>_teacher.py and <folder>_<variant>.py')
    parser.add_argument('--work-dir', required=True, help='what is there is not run again')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--variants', nargs='+', help='names of configs, by default all')
    parser.add_argument('--jobs', type=int, default=1, help='processes at a time')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='for every run')
    return parser.parse_args()


def main() -> None:
    """Run and print."""
    args = parse_args()
    results = run_protocol(
        args.folder, args.work_dir, args.seeds, args.variants, args.jobs, args.cfg_options
    )
    print(format_table(*results))


if __name__ == '__main__':
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f'add_classes.py: error: {error}') from None
