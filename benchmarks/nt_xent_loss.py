"""NTXentLoss against pytorch-metric-learning's and lightly's: time and peak memory.

Forward and backward with pairs of 128-dimensional embeddings. Peak memory is the growth of a
fresh process's resident memory during the call; one that would need more than --memory-limit GiB
of address space is reported as out of memory. On a GPU both are of what PyTorch allocates,
and the kernels that a call launches and its waits for the GPU are counted.
"""

import json
import sys
from typing import Callable

import _common as common

DIM = 128
TEMPERATURE = 0.5
NAMES = ('ours', 'pytorch-metric-learning', 'lightly')


def build(name: str) -> Callable:
    """Return a loss of query and key by name."""
    if name == 'pytorch-metric-learning':
        from pytorch_metric_learning import losses

        return losses.SelfSupervisedLoss(losses.NTXentLoss(TEMPERATURE))
    if name == 'lightly':
        from lightly.loss import NTXentLoss as LightlyLoss

        return LightlyLoss(TEMPERATURE)
    from mmdet_contrast.models.losses import NTXentLoss

    return NTXentLoss(TEMPERATURE, 'all')


def make_step(name: str, pairs: int, device: str) -> Callable[[], float]:
    """Return a function that runs the loss forward and backward and returns its value."""
    import torch

    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, pairs, DIM, generator=generator).to(device).unbind()
    query, key = query.requires_grad_(), key.requires_grad_()
    loss = build(name)

    def step() -> float:
        query.grad = key.grad = None
        value = loss(query, key)
        value.backward()
        return value.item()

    return step


def run_case(name: str, pairs: int, device: str, memory_limit: float) -> None:
    """In a fresh process: print value and peak memory of one call as JSON."""
    # loads whatever is loaded at the first call only
    make_step(name, min(pairs, 128), device)()
    common.release_memory()
    step = make_step(name, pairs, device)
    common.limit_memory(memory_limit, device)
    try:
        with common.PeakMemory(device) as memory:
            value = step()
    except (RuntimeError, MemoryError) as error:
        if not common.is_out_of_memory(error):
            raise
        print(json.dumps(None))
        return
    print(json.dumps(dict(value=value, memory=memory.grown)))


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, device=True)
    parser.add_argument('--pairs', type=int, nargs='+', default=[128, 512, 2048, 8192])
    parser.add_argument('--memory-limit', type=float, default=14, metavar='GIB')
    parser.add_argument('--case', nargs=2, metavar=('NAME', 'PAIRS'), help='used by the script')
    args = parser.parse_args()
    if args.case:
        run_case(args.case[0], int(args.case[1]), args.device, args.memory_limit)
        return
    sizes = [16] if args.quick else args.pairs

    # the small processes come first: a child starts with its parent's high-water mark
    options = ['--memory-limit', str(args.memory_limit), '--device', args.device]
    results = common.in_fresh_processes(
        {
            (pairs, name): ['--case', name, str(pairs), *options]
            for pairs in sizes
            for name in NAMES
        },
        __file__,
        args.device,
    )

    print(common.machine(args.device))
    columns = common.call_columns(args.device)
    rows = []
    for pairs in sizes:
        done = {name: results[pairs, name] for name in NAMES if results[pairs, name]}
        steps = {name: make_step(name, pairs, args.device) for name in done}
        repeats = 2 if args.quick else max(3, min(101, 20 * (512 // pairs) ** 2))
        taken = common.seconds(steps, repeats=repeats, limit=15)
        memory = {name: result['memory'] for name, result in done.items()}
        values = {name: result['value'] for name, result in done.items()}
        calls = {name: common.show_calls([step], args.device) for name, step in steps.items()}
        for name in NAMES:
            time_ratio = common.show_ratio(taken.get(name), taken['ours'])
            memory_ratio = common.show_ratio(memory.get(name), memory['ours'])
            rows.append(
                (
                    str(pairs),
                    name,
                    common.show_time(taken.get(name)),
                    '' if name == 'ours' else time_ratio,
                    common.show_memory(memory.get(name)),
                    '' if name == 'ours' else memory_ratio,
                    *calls.get(name, ['-'] * len(columns)),
                    f'{values[name]:.6f}' if name in values else '-',
                )
            )
        worst = max(abs(value - values['ours']) for value in values.values())
        if worst > 1e-5 * max(1.0, abs(values['ours'])):
            sys.exit(f'The values disagree by {worst:.2e} at {pairs} pairs: {values}')
    header = ('pairs', 'loss', 'time', 'time / ours', 'peak memory', 'memory / ours')
    print(common.table((*header, *columns, 'value'), rows))


if __name__ == '__main__':
    main()
