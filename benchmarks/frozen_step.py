"""A training step with a frozen backbone against a full one: time and memory.

Forward in training mode, backward and the optimizer's update, for RetinaNet with ResNet-50 at a
reduced width and for YOLOv8-n. The frozen steps are those of ``FreezeBackboneHook``: with the
backbone frozen, with backbone and neck frozen, and, for comparison, with the neck alone, whose
activations are needed by the backbone's gradient. What is frozen must stand still to the last bit,
and what is not must move. Peak memory is the growth during one step, in fresh processes. On a GPU
it is of what PyTorch allocates, and the kernels that a step launches and its waits for the GPU are
counted.
"""

import sys
from types import SimpleNamespace
from typing import Callable, Tuple

import _common as common

MODELS = {
    # name: config, changes to the model
    'RetinaNet-R50, half width': (
        'retina_coco.py',
        dict(
            backbone=dict(base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
            neck=dict(in_channels=[128, 256, 512, 1024], out_channels=128),
            bbox_head=dict(in_channels=128, feat_channels=128),
        ),
    ),
    'YOLOv8-n': ('yolov8/yolov8_n_coco.py', dict()),
}
FROZEN = {
    'full': (),
    'neck frozen': ('neck',),
    'backbone frozen': ('backbone',),
    'backbone, neck frozen': ('backbone', 'neck'),
}


def build(name: str, frozen: Tuple[str, ...], device: str) -> Tuple:
    """Return the model in training mode, parts of it frozen by the hook, and its optimizer."""
    import torch
    from mmdet.registry import MODELS as REGISTRY
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    from mmdet_contrast.engine.hooks import FreezeBackboneHook

    init_default_scope('mmdet')
    file, changes = MODELS[name]
    cfg = Config.fromfile(str(common.ROOT / 'configs' / file))
    cfg.merge_from_dict(dict(model=changes))
    torch.manual_seed(0)
    model = REGISTRY.build(cfg.model).to(device).train()
    optimizer = dict(type='SGD', lr=1e-4, momentum=0.9, weight_decay=1e-4)
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=optimizer))
    if frozen:
        logger = MMLogger.get_instance('frozen_step', log_level='ERROR')
        runner = SimpleNamespace(
            model=model,
            optim_wrapper=wrapper,
            train_loop=None,
            hooks=[],
            epoch=0,
            iter=0,
            logger=logger,
        )
        FreezeBackboneHook(freeze_epochs=1, modules=frozen).before_train(runner)
    return model, wrapper


def make_step(
    name: str, frozen: Tuple[str, ...], size: int, images: int, device: str
) -> Tuple[Callable, object]:
    """Return a training step and its model."""
    model, wrapper = build(name, frozen, device)
    pictures, samples = common.random_batch(size, images, 80, device)

    def step() -> None:
        loss, _ = model.parse_losses(model(pictures, samples, mode='loss'))
        wrapper.update_params(loss)

    return step, model


def check(name: str, case: str, step: Callable[[], None], model) -> None:
    """Exit if a frozen value moves, or if a trained part does not."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    step()
    for part in ('backbone', 'neck', 'bbox_head'):
        moved = any(
            not before[key].equal(value)
            for key, value in model.state_dict().items()
            if key.startswith(f'{part}.')
        )
        if moved == (part in FROZEN[case]):
            sys.exit(f'{name}, {case}: {part} {"moves" if moved else "does not move"}.')


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, device=True)
    parser.add_argument('--size', type=int, default=320)
    parser.add_argument('--images', type=int, default=4)
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--memory-of', nargs=2, help='used by the script')
    args = parser.parse_args()
    if args.memory_of:
        name, case = args.memory_of
        step, _ = make_step(name, FROZEN[case], args.size, args.images, args.device)
        common.print_peak(step, args.device)
        return
    if args.quick:
        args.size, args.images, args.repeats = 64, 2, 1

    options = ['--size', str(args.size), '--images', str(args.images), '--device', args.device]
    print(common.machine(args.device))
    for name in MODELS:
        # half of the cases show that it runs
        cases = list(FROZEN)[::2] if args.quick else list(FROZEN)
        memory = common.in_fresh_processes(
            {case: [*options, '--memory-of', name, case] for case in cases}, __file__, args.device
        )
        steps = {}
        for case in cases:
            steps[case], model = make_step(name, FROZEN[case], args.size, args.images, args.device)
            check(name, case, steps[case], model)
        print(f'\n{name}, {args.images} images of {args.size} x {args.size}')
        print(common.step_table(steps, memory, 'full', args.device, args.repeats))


if __name__ == '__main__':
    main()
