"""Export the network of a single-stage detector to ONNX, with a free batch size."""

import argparse

from mmdet_contrast.utils.cfg_options import CfgOptions
from mmdet_contrast.utils.onnx import export_config


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help='.onnx file to write')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(640, 640),
        metavar=('H', 'W'),
        help='size of the images in pixels (default: 640 640)',
    )
    parser.add_argument(
        '--names', nargs='+', help='one name for each kind of output, e.g. cls_score bbox_pred'
    )
    parser.add_argument(
        '--check', action='store_true', help='run the file with onnxruntime and compare'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='config values to override, as key=value; lists as key="[a,b]" or key=a,b',
    )
    args = parser.parse_args()
    try:
        names, difference = export_config(
            args.config,
            args.checkpoint,
            args.out,
            args.shape,
            args.names,
            args.check,
            args.cfg_options,
        )
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f'export_onnx.py: error: {error}') from None
    print(f'{args.out}: {", ".join(names)}')
    if difference is not None:
        print(f'checked with onnxruntime: largest difference {difference:.2g}')


if __name__ == '__main__':
    main()
