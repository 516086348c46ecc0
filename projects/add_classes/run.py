"""Train a teacher and every way of adding classes to it, and print the table."""

import argparse

from mmengine.config import DictAction
from protocol import format_table, run_protocol


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('prefix', help='of <prefix>_teacher.py and <prefix>_<variant>.py')
    parser.add_argument('--work-dir', required=True, help='what is there is not run again')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--variants', nargs='+', help='names of configs, by default all')
    parser.add_argument('--jobs', type=int, default=1, help='processes at a time')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='for every run')
    return parser.parse_args()


def main() -> None:
    """Run and print."""
    args = parse_args()
    results = run_protocol(
        args.prefix, args.work_dir, args.seeds, args.variants, args.jobs, args.cfg_options
    )
    print(format_table(*results))


if __name__ == '__main__':
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f'run.py: error: {error}') from None
