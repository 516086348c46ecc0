"""A training step with distillation against a student's step and a teacher's forward pass.

Ours is ``DistillationDetector``: the teacher's forward pass, the student's losses, the terms of
distillation, backward, clipping and the optimizer's update. Theirs is the same student and teacher
without any distillation: the teacher's forward pass under ``no_grad``, then the student's losses,
backward, clipping and update. YOLOv8-n teaches YOLOv8-n, with the terms of ``projects/mar20``,
channel-wise divergence on four maps of the backbone and four of the neck with softmax-KL, and with
those of ``tools/add_classes.py``: classes, boxes and features. The student's own losses must be
equal on both sides, the teacher must stand still to the last bit, and the student must move. Peak
memory is the growth during one step, in fresh processes. On a GPU it is of what PyTorch allocates,
and the kernels that a step launches and its waits for the GPU are counted.
"""

import sys
from typing import Callable, Dict, Tuple

import _common as common

CASES = {
    'CWD on 8 maps + KL': 'projects/mar20/mar20_log.py',
    'adding classes': 'configs/distill/shapes20_teacher.py',
}
OURS, THEIRS = 'with distillation', 'student step + teacher forward'


def build(case: str, device: str, checkpoint: str = '') -> Tuple:
    """Return the wrapper with its teacher, ready to train, and the config of its model."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    from mmdet_contrast.apis.addition_config import distillation_terms

    init_default_scope('mmdet')
    if not MMLogger.check_instance_created('distillation_step'):
        MMLogger.get_instance('distillation_step', log_level='ERROR')
    cfg = Config.fromfile(str(common.ROOT / CASES[case]))
    if cfg.model.type != 'DistillationDetector':
        cfg.model = dict(
            type='DistillationDetector',
            student=dict(cfg.model, bbox_head=dict(cfg.model.bbox_head, num_classes=20)),
            teacher=cfg.model,
            annotated_classes=[f'new {i}' for i in range(10)],
            norm_eval=True,
            distillers=distillation_terms(MODELS.build(cfg.model).bbox_head),
        )
    if checkpoint:
        cfg.model.teacher_checkpoint = checkpoint
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    if checkpoint:
        model.teacher.load()
    else:
        # what DistillationHook reads from a checkpoint
        model.teacher.build().init_weights()
        names = [f'class {i}' for i in range(model.teacher.model.bbox_head.num_classes)]
        model.teacher.classes = tuple(names)
    number = model.student.bbox_head.num_classes
    names = list(model.teacher.classes)
    model.prepare([*names, *(f'new {i}' for i in range(number - len(names)))])
    # the teacher is no module of the wrapper
    model.teacher.model.to(device)
    return model.to(device).train(), cfg


def make_step(
    name: str, case: str, size: int, images: int, device: str, checkpoint: str = ''
) -> Tuple[Callable[[], Dict[str, float]], object]:
    """Return a training step, which gives the losses, and the wrapper."""
    import torch
    from mmengine.optim import build_optim_wrapper

    wrapper, cfg = build(case, device, checkpoint)
    trained = wrapper if name == OURS else wrapper.student
    settings = dict(cfg.optim_wrapper, optimizer=dict(cfg.optim_wrapper.optimizer, lr=1e-4))
    optimizer = build_optim_wrapper(trained, settings)
    pictures, samples = common.random_batch(size, images, 20, device)
    teacher = wrapper.teacher.model

    def step() -> Dict[str, float]:
        if name == THEIRS:
            with torch.no_grad():
                teacher.bbox_head(teacher.extract_feat(pictures))
        loss, parts = trained.parse_losses(trained.loss(pictures, samples))
        optimizer.update_params(loss)
        return parts

    return step, wrapper


def check(steps: Dict[str, Callable], wrappers: Dict[str, object]) -> None:
    """Exit if the own losses differ, the teacher moves, or the student does not."""
    before = {
        name: [
            {key: value.clone() for key, value in module.state_dict().items()}
            for module in (wrapper.student, wrapper.teacher.model)
        ]
        for name, wrapper in wrappers.items()
    }
    losses = {
        name: {k: float(v.detach()) for k, v in step().items()} for name, step in steps.items()
    }
    for name, wrapper in wrappers.items():
        for module, old, still in zip(
            (wrapper.student, wrapper.teacher.model), before[name], (False, True)
        ):
            same = all(old[key].equal(value) for key, value in module.state_dict().items())
            if same != still:
                sys.exit(f'{name}: the {"teacher moves" if still else "student does not move"}.')
    for key, value in losses[THEIRS].items():
        if key != 'loss' and abs(losses[OURS][key] - value) > 1e-5 * abs(value):
            sys.exit(f'{key} is {losses[OURS][key]} with distillation, {value} without.')


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, device=True)
    parser.add_argument('--sizes', type=int, nargs='+', default=[128, 320])
    parser.add_argument('--images', type=int, default=8)
    parser.add_argument('--repeats', type=int, default=11)
    parser.add_argument('--cases', nargs='+', choices=list(CASES), default=list(CASES))
    parser.add_argument('--teacher', default='', help='checkpoint of a trained teacher')
    parser.add_argument('--memory-of', nargs=2, help='used by the script')
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.images, args.repeats = [64], 2, 1
    if args.memory_of:
        step, _ = make_step(*args.memory_of, args.sizes[0], args.images, args.device, args.teacher)
        common.print_peak(step, args.device)
        return

    print(common.machine(args.device))
    for case in args.cases:
        for size in args.sizes:
            print(f'\n{case}, {args.images} images of {size} x {size}', flush=True)
            options = ['--sizes', str(size), '--images', str(args.images)]
            options += ['--device', args.device, '--teacher', args.teacher]
            memory = common.in_fresh_processes(
                {name: [*options, '--memory-of', name, case] for name in (OURS, THEIRS)},
                __file__,
                args.device,
            )
            steps, wrappers = {}, {}
            for name in (OURS, THEIRS):
                steps[name], wrappers[name] = make_step(
                    name, case, size, args.images, args.device, args.teacher
                )
            check(steps, wrappers)
            print(common.step_table(steps, memory, THEIRS, args.device, args.repeats))


if __name__ == '__main__':
    main()
