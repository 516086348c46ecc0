"""Export the network of a single-stage detector to ONNX, with a free batch size."""

import argparse

from mmengine.config import DictAction

from mmdet_contrast.converters.onnx import check_onnx, export_onnx
from mmdet_contrast.utils.config import errors_in_one_line, load_config
from mmdet_contrast.utils.model import build_detector
from mmdet_contrast.utils.safe_loading import add_trust_option, trust_checkpoints


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
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value')
    add_trust_option(parser)
    args = parser.parse_args()
    with errors_in_one_line(parser), trust_checkpoints(args.trust_checkpoint):
        cfg = load_config(args.config, cfg_options=args.cfg_options)
        model = build_detector(cfg, args.checkpoint)
        names = export_onnx(model, args.out, args.shape, args.names)
    print(f'{args.out}: {", ".join(names)}')
    if args.check:
        difference = check_onnx(model, args.out, args.shape)
        print(f'checked with onnxruntime: largest difference {difference:.2g}')


if __name__ == '__main__':
    main()
