"""ChannelWiseDivergence against MMRazor's formula: time and peak memory, forward and backward.

The formula as it is published, each map flattened to a channel's positions and softmax, logarithms
and sum left to autograd. The maps are a student's and a teacher's of YOLOv8-n at 640 x 640 and of
RetinaNet at 800 x 1344; a call is the sum over their levels. Peak memory is the growth of a fresh
process's resident memory during a call; on a GPU, of what PyTorch allocates.
"""

import json
import sys
from typing import Callable, Dict, List, Tuple

import _common as common

Shapes = List[Tuple[int, int, int, int]]


def shapes_of(images: int) -> Dict[str, Shapes]:
    """Return the shapes of the levels by detector."""
    sizes = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
    return {
        'YOLOv8-n': [(images, 64 * 2**i, 80 // 2**i, 80 // 2**i) for i in range(3)],
        'RetinaNet': [(images, 256, *size) for size in sizes],
    }


def published(student, teacher, tau: float):
    """Compute the divergence as MMRazor's formula has it."""
    import torch
    from torch.nn.functional import log_softmax, softmax

    count, channels, height, width = student.shape
    positions = height * width
    p_teacher = softmax(teacher.view(-1, positions) / tau, dim=1)
    total = torch.sum(
        p_teacher * log_softmax(teacher.view(-1, positions) / tau, dim=1)
        - p_teacher * log_softmax(student.view(-1, positions) / tau, dim=1)
    )
    return total * tau**2 / (channels * count)


def make_step(
    name: str, shapes: Shapes, tau: float, device: str
) -> Callable[[], Tuple[float, list]]:
    """Return a function that runs the loss forward and backward: its value and gradients."""
    import torch

    from mmdet_contrast.models.losses import ChannelWiseDivergence

    generator = torch.Generator().manual_seed(0)
    students = [torch.randn(x, generator=generator).to(device).requires_grad_() for x in shapes]
    teachers = [torch.randn(x, generator=generator).to(device) for x in shapes]
    ours = ChannelWiseDivergence(tau)

    def step() -> Tuple[float, list]:
        for student in students:
            student.grad = None
        value = sum(
            ours(s, t) if name == 'ours' else published(s, t, tau)
            for s, t in zip(students, teachers)
        )
        value.backward()
        return value.item(), [student.grad for student in students]

    return step


def run_case(name: str, shapes: Shapes, tau: float, device: str) -> None:
    """In a fresh process: print the peak memory of one call as JSON."""
    # loads whatever is loaded at the first call only
    make_step(name, [(1, 2, 4, 4)], tau, device)()
    common.release_memory()
    step = make_step(name, shapes, tau, device)
    with common.PeakMemory(device) as memory:
        step()
    print(json.dumps(dict(memory=memory.grown)))


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, device=True)
    parser.add_argument('--images', type=int, default=8, help='images of a batch')
    parser.add_argument('--tau', type=float, nargs='+', default=[1.0, 4.0], help='temperatures')
    parser.add_argument('--repeats', type=int, default=11)
    parser.add_argument('--case', nargs=3, metavar=('LOSS', 'SHAPES', 'TAU'), help='for the script')
    args = parser.parse_args()
    if args.case:
        name, shapes, tau = args.case
        run_case(name, json.loads(shapes), float(tau), args.device)
        return
    detectors = shapes_of(args.images)
    if args.quick:
        args.tau = args.tau[-1:]
        detectors = {
            name: [(2, 4, max(h // 8, 1), max(w // 8, 1)) for _, _, h, w in shapes]
            for name, shapes in detectors.items()
        }
    names = ('ours', 'published formula')
    cases = [(detector, tau) for detector in detectors for tau in args.tau]

    # the small processes come first: a child starts with its parent's high-water mark
    options = ['--device', args.device]
    found = common.in_fresh_processes(
        {
            (*case, name): ['--case', name, json.dumps(detectors[case[0]]), str(case[1]), *options]
            for case in cases
            for name in names
        },
        __file__,
        args.device,
    )
    memory = {key: result['memory'] for key, result in found.items()}
    print(f'{common.machine(args.device)}; {args.images} images')
    rows = []
    for detector, tau in cases:
        steps = {name: make_step(name, detectors[detector], tau, args.device) for name in names}
        results = {name: step() for name, step in steps.items()}
        taken = common.seconds(steps, repeats=2 if args.quick else args.repeats)
        for name in names:
            own = name == 'ours'
            used = memory[detector, tau, name]
            rows.append(
                (
                    detector,
                    f'{tau:g}',
                    name,
                    common.show_time(taken[name]),
                    '' if own else common.show_ratio(taken[name], taken['ours']),
                    common.show_memory(used),
                    '' if own else common.show_ratio(used, memory[detector, tau, 'ours']),
                    f'{results[name][0]:.6f}',
                )
            )
        (value, grads), (other, others) = (results[name] for name in names)
        worst = max((a - b).abs().max() / b.abs().max() for a, b in zip(grads, others))
        if abs(value - other) > 1e-5 * abs(other) or worst > 1e-4:
            sys.exit(
                f'Values {value} and {other}, and gradients by {worst:.2e}, disagree: {detector}.'
            )
    header = ('maps', 'tau', 'loss', 'time', 'time / ours', 'peak memory', 'memory / ours', 'value')
    print(common.table(header, rows))


if __name__ == '__main__':
    main()
