"""The contrastive losses against what is published: time and peak memory.

Forward and backward with pairs of 128-dimensional embeddings, of ten classes; PatchNCE with 64
locations to an image. References: pytorch-metric-learning's losses (triplet: mean over all of them;
each pair a class of its own), lightly's NT-Xent, and the steps of the published PatchNCE as plain
operations (diagonal apart, -10 in its place). Peak memory is the growth of a fresh process's
resident memory during the call; one that would need more than --memory-limit GiB of address space
is reported as out of memory. On a GPU both are of what PyTorch allocates, and the kernels that a
call launches and its waits for the GPU are counted.
"""

import json
import sys
from typing import Callable, Dict

import _common as common

DIM, CLASSES, LOCATIONS = 128, 10, 64
PML = 'pytorch-metric-learning'
SIDES = {
    'NT-Xent': ('ours', PML, 'lightly'),
    'SupCon': ('ours', PML),
    'PatchNCE': ('ours', 'published steps'),
    'Triplet': ('ours', PML),
}


def nt_xent(pairs: int, device: str) -> Dict[str, Callable]:
    """Return NT-Xent with all other embeddings as negatives."""
    from lightly.loss import NTXentLoss as Lightly
    from pytorch_metric_learning.losses import NTXentLoss as Theirs
    from pytorch_metric_learning.losses import SelfSupervisedLoss

    from mmdet_contrast.models.losses import NTXentLoss

    theirs = SelfSupervisedLoss(Theirs(0.5))
    return {'ours': NTXentLoss(0.5, 'all'), PML: theirs, 'lightly': Lightly(0.5)}


def supcon(pairs: int, device: str) -> Dict[str, Callable]:
    """Return both SupCon losses."""
    import torch
    from pytorch_metric_learning.losses import SupConLoss as Theirs

    from mmdet_contrast.models.losses import SupConLoss

    labels, theirs = torch.arange(pairs, device=device) % CLASSES, Theirs(0.1)
    ours = SupConLoss(0.1)
    return {
        'ours': lambda q, k: ours(q, k, labels),
        PML: lambda q, k: theirs(torch.cat((q, k)), labels.repeat(2)),
    }


def patch_nce(pairs: int, device: str) -> Dict[str, Callable]:
    """Return our PatchNCE loss and the published steps."""
    import torch
    import torch.nn.functional as F

    from mmdet_contrast.models.losses import PatchNCELoss

    size = min(LOCATIONS, pairs)
    groups, ours = torch.arange(pairs, device=device) // size, PatchNCELoss(0.07)
    diagonal = torch.eye(size, dtype=torch.bool, device=device)
    target = torch.zeros(pairs, dtype=torch.long, device=device)

    def theirs(query, key):
        q, k = F.normalize(query, dim=1), F.normalize(key.detach(), dim=1)
        similarity = torch.bmm(q.reshape(-1, size, DIM), k.reshape(-1, size, DIM).transpose(1, 2))
        similarity = similarity.masked_fill(diagonal, -10)
        logits = torch.cat(((q * k).sum(1, keepdim=True), similarity.reshape(-1, size)), dim=1)
        return F.cross_entropy(logits / 0.07, target)

    return {'ours': lambda q, k: ours(q, k, groups=groups), 'published steps': theirs}


def triplet(pairs: int, device: str) -> Dict[str, Callable]:
    """Return both triplet losses over all triplets."""
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.reducers import MeanReducer

    from mmdet_contrast.models.losses import TripletLoss

    theirs = TripletMarginLoss(0.2, distance=CosineSimilarity(), reducer=MeanReducer())
    labels = torch.arange(pairs, device=device).repeat(2)
    return {
        'ours': TripletLoss(0.2, loss_weight=1.0),
        PML: lambda q, k: theirs(torch.cat((q, k)), labels),
    }


def make_step(loss: str, side: str, pairs: int, device: str) -> Callable[[], float]:
    """Return a function that runs a loss forward and backward and returns its value."""
    import torch

    builders = dict(zip(SIDES, (nt_xent, supcon, patch_nce, triplet)))
    function = builders[loss](pairs, device)[side]
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, pairs, DIM, generator=generator).to(device).unbind()
    query.requires_grad_()
    key.requires_grad_()

    def step() -> float:
        query.grad = key.grad = None
        value = function(query, key)
        value.backward()
        return value.item()

    return step


def run_case(loss: str, side: str, pairs: int, device: str, memory_limit: float) -> None:
    """In a fresh process: print value and peak memory of one call as JSON."""
    # loads whatever is loaded at the first call only
    make_step(loss, side, min(pairs, 2 * LOCATIONS), device)()
    common.release_memory()
    step, result = make_step(loss, side, pairs, device), None
    common.limit_memory(memory_limit, device)
    try:
        with common.PeakMemory(device) as memory:
            value = step()
        result = dict(value=value, memory=memory.grown)
    except (RuntimeError, MemoryError) as error:
        if not common.is_out_of_memory(error):
            raise
    print(json.dumps(result))


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, device=True)
    parser.add_argument('--losses', nargs='+', choices=list(SIDES), default=list(SIDES))
    parser.add_argument('--pairs', type=int, nargs='+', default=[128, 512, 2048])
    parser.add_argument('--memory-limit', type=float, default=14, metavar='GIB')
    parser.add_argument('--case', nargs=3, metavar=('LOSS', 'SIDE', 'PAIRS'), help='for itself')
    args = parser.parse_args()
    if args.case:
        loss, side, pairs = args.case
        run_case(loss, side, int(pairs), args.device, args.memory_limit)
        return
    cases = [(loss, n) for loss in args.losses for n in ([16] if args.quick else args.pairs)]

    # the small processes come first: a child starts with its parent's high-water mark
    options = ['--memory-limit', str(args.memory_limit), '--device', args.device]
    results = common.in_fresh_processes(
        {
            (loss, n, side): ['--case', loss, side, str(n), *options]
            for loss, n in cases
            for side in SIDES[loss]
        },
        __file__,
        args.device,
    )

    print(common.machine(args.device))
    columns = common.call_columns(args.device)
    rows = []
    for loss, n in cases:
        done = {side: results[loss, n, side] or {} for side in SIDES[loss]}
        steps = {side: make_step(loss, side, n, args.device) for side in done if done[side]}
        taken = common.seconds(steps, repeats=2 if args.quick else 21, limit=15)
        ours = done['ours']
        for side, found in done.items():
            value = found.get('value', ours['value'])
            if abs(value - ours['value']) > 1e-5 * max(1.0, abs(ours['value'])):
                sys.exit(f'The values of {loss} at {n} pairs disagree: {done}')
            ratios = (
                common.show_ratio(taken.get(side), taken['ours']),
                common.show_ratio(found.get('memory'), ours['memory']),
            )
            calls = common.show_calls([steps[side]], args.device) if found else ['-'] * len(columns)
            rows.append(
                (
                    loss,
                    str(n),
                    side,
                    common.show_time(taken.get(side)),
                    '' if side == 'ours' else ratios[0],
                    common.show_memory(found.get('memory')),
                    '' if side == 'ours' else ratios[1],
                    *calls,
                    f'{value:.6f}' if found else '-',
                )
            )
    header = ('loss', 'pairs', 'side', 'time', 'time / ours', 'peak memory', 'memory / ours')
    print(common.table((*header, *columns, 'value'), rows))


if __name__ == '__main__':
    main()
