"""The contrastive branch's share of a whole training step of a full RetinaNet-R50.

The step is the one of configs/retina_contrast_coco.py without its pre-trained weights: forward,
backward and SGD with images and their views. The branch is timed alone, forward and backward down
to the feature maps, on those that the same model makes of the same batch.
"""

import sys

import _common as common
from region_contrast import branch_step


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__)
    parser.add_argument('--images', type=int, default=1)
    parser.add_argument('--boxes', type=int, default=20, help='to an image')
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument('--repeats', type=int, default=2)
    args = parser.parse_args()
    if args.quick:
        args.boxes, args.size, args.repeats = 3, (64, 96), 1

    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    from region_contrast import make_scene

    cfg = Config.fromfile(str(common.ROOT / 'configs' / 'retina_contrast_coco.py'))
    init_default_scope('mmdet')
    torch.manual_seed(0)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    model.train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    _, samples = make_scene(args.images, args.boxes, *args.size, channels=1)
    for sample in samples:
        # what the data preprocessor adds for an image that needs no padding
        sample.set_metainfo(dict(batch_input_shape=tuple(args.size), pad_shape=tuple(args.size)))
    images = torch.randn(2 * args.images, 3, *args.size)

    def step() -> None:
        losses, _ = model.parse_losses(model.loss(images, samples))
        optim_wrapper.update_params(losses)

    with torch.no_grad():
        feats = model.extract_feat(images)
    branch = branch_step(
        model.bbox_head.contrast, [feat.clone().requires_grad_() for feat in feats], samples
    )
    taken = common.seconds(
        {'whole step': step, 'contrastive branch': branch},
        repeats=args.repeats,
        warm_up=1,
        limit=60,
    )
    print(common.machine())
    print(
        f'{args.images} image(s) of {args.size[0]} x {args.size[1]} with {args.boxes} boxes, and '
        f'its view; {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters'
    )
    share = taken['contrastive branch'] / taken['whole step']
    rows = [
        ('whole step', common.show_time(taken['whole step']), '100 %'),
        ('contrastive branch', common.show_time(taken['contrastive branch']), f'{share:.2%}'),
    ]
    print(common.table(('part', 'time', 'share'), rows))
    if not 0 < share < 1:
        sys.exit(f'A share of {share} cannot be.')


if __name__ == '__main__':
    main()
