"""Draw training samples of a config: original | contrastive view."""

import argparse

from mmdet_contrast.visualization import save_view_pairs


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file with a contrastive training pipeline')
    parser.add_argument('--out-dir', required=True, help='folder for the pictures')
    parser.add_argument('--num', type=int, default=8, help='number of samples (default: 8)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the pipeline (default: 0)')
    args = parser.parse_args()
    try:
        paths = save_view_pairs(args.config, args.out_dir, args.num, args.seed)
    except (ValueError, OSError) as error:
        raise SystemExit(f'browse_views.py: error: {error}') from None
    print(f'{len(paths)} view pairs in {args.out_dir}')


if __name__ == '__main__':
    main()
