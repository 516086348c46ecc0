"""Draw the embeddings of the validation boxes of a detector, coloured by class."""

import argparse

from mmengine.config import DictAction

from mmdet_contrast.utils.config import errors_in_one_line
from mmdet_contrast.utils.safe_loading import add_trust_option, trust_checkpoints
from mmdet_contrast.visualization.embedding_map import save_embedding_map


def _level(text: str) -> object:
    return text if text == 'scale' else int(text)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of the detector')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help='PNG to write')
    parser.add_argument('--module', help="module's path (default: neck, else backbone)")
    parser.add_argument(
        '--level', type=_level, default='scale', help='index, or scale (default: scale)'
    )
    parser.add_argument(
        '--max-samples', type=int, default=2000, help='images of each set (default: 2000)'
    )
    parser.add_argument('--device', help='e.g. cpu or cuda:1 (default: the GPU, if there is one)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value')
    add_trust_option(parser)
    args = parser.parse_args()
    with errors_in_one_line(parser), trust_checkpoints(args.trust_checkpoint):
        values = save_embedding_map(
            args.config,
            args.checkpoint,
            args.out,
            args.module,
            args.level,
            args.max_samples,
            args.device,
            args.cfg_options,
        )
    print(', '.join(f'{key} {value:.4g}' for key, value in values.items()))
    print(f'map in {args.out}')


if __name__ == '__main__':
    main()
