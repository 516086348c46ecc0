"""Count the parameters and operations of a config's model, part by part."""

import argparse
from typing import Any, Dict, Sequence

from mmengine.analysis import get_model_complexity_info
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from torch import nn

from mmdet_contrast.utils.config import errors_in_one_line, load_config
from mmdet_contrast.utils.model import PlainForward, build_detector, dummy_images


def complexity(model: nn.Module, shape: Sequence[int]) -> Dict[str, Any]:
    """Measure one forward pass of one image (H, W), without post-processing, with MMEngine."""
    # MMEngine warns, on standard output, of activations and of parts that only training calls
    MMLogger.get_current_instance().setLevel('ERROR')
    inputs = (dummy_images(shape),)
    return get_model_complexity_info(PlainForward(model).eval(), inputs=inputs, show_arch=False)


def main() -> None:
    """Parse the command line, run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape', type=int, nargs=2, default=(640, 640), metavar=('H', 'W'), help='of the image'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value')
    args = parser.parse_args()
    with errors_in_one_line(parser):
        model = build_detector(load_config(args.config, cfg_options=args.cfg_options))
    found = complexity(model, args.shape)
    print(found['out_table'])
    height, width = args.shape
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    print(
        f'one image of 3 x {height} x {width}: {found["flops"]:,} FLOPs (a multiplication and '
        f'its addition are one), {found["params"]:,} parameters, {trained:,} of them trained'
    )


if __name__ == '__main__':
    main()
