"""The number of the branch's operators: on a GPU its time is that of launching them."""

from collections import Counter

import pytest
import torch
from contrast_batches import build, make_feats, make_samples
from torch.utils._python_dispatch import TorchDispatchMode

# What makes the host wait for a GPU, and what has a size that only the GPU knows.
WAITS = ('_local_scalar_dense', 'item', 'nonzero', 'masked_select', 'equal', 'is_nonzero', 'unique')
# Views, allocations, and what stays on the host.
NO_KERNEL = ('empty', 'new_empty', 'detach', 'promote_types', '_unsafe_view', 'scalar_tensor')


class OperatorCalls(TorchDispatchMode):
    """Count the operators that compute something: no views, no bare allocations."""

    def __init__(self):
        super().__init__()
        self.calls, self.waits = Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name, returns = func.overloadpacket.__name__, func._schema.returns
        is_view = all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        empty = isinstance(out, torch.Tensor) and out.numel() == 0
        if not (is_view or empty or name.startswith(NO_KERNEL)):
            self.calls[name] += 1
        by_mask = name.startswith('index') and any(
            isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8)
            for x in (args[1] if isinstance(args[1], (list, tuple)) else ())
        )
        if by_mask or name in WAITS:
            self.waits.append(name)
        return out


def count(images=2, boxes=20, levels=3, **kwargs):
    """Count the operators of the forward and of the backward pass of a step."""
    strides = (8, 16, 32, 64, 128)[:levels]
    module = build(in_channels=16, strides=strides, **{**dict(queue=dict(size=8)), **kwargs})
    samples = make_samples((boxes,) * images)
    feats = make_feats(len(samples), 16, strides, torch.float32)
    module.float()
    module(feats, samples)  # what is made once
    with OperatorCalls() as forward:
        losses = module(feats, samples)
    loss = sum(value for name, value in losses.items() if 'loss' in name)
    with OperatorCalls() as backward:
        loss.backward()
    return forward, backward


def number(calls):
    return sum(calls[0].calls.values()), sum(calls[1].calls.values())


PATCHES = dict(
    sampler=dict(type='PatchSampler', num_patches=20),
    criterion=dict(type='PatchNCELoss'),
    share_projector=False,
    scope='image',
)
CASES = {
    'defaults': dict(),
    'jitter': dict(sampler=dict(type='JitteredBoxes')),
    'image': dict(scope='image'),
    'supcon': dict(criterion=dict(type='SupConLoss')),
    'simsiam': dict(criterion=dict(type='SimSiamLoss', in_channels=5)),
    'triplet': dict(criterion=dict(type='PairTripletLoss')),
    'patches': PATCHES,
}


@pytest.mark.parametrize('case', CASES)
def test_nothing_waits_for_the_device(case):
    forward, backward = count(**CASES[case])
    assert not forward.waits and not backward.waits


# With the default there are 129 and 41, and two kernels of roi_align for each level, which is no
# operator of PyTorch's: 180 together.
@pytest.mark.parametrize(
    'case, most',
    [
        ('defaults', 173),
        ('jitter', 185),
        ('supcon', 187),
        ('simsiam', 90),
        ('triplet', 150),
        ('patches', 235),
    ],
)
def test_number_is_bounded(case, most):
    forward, backward = number(count(8, levels=5, **CASES[case]))
    assert forward + backward <= most


@pytest.mark.parametrize('case', CASES)
def test_number_does_not_grow_with_the_boxes(case):
    assert number(count(boxes=2, **CASES[case])) == number(count(boxes=20, **CASES[case]))


@pytest.mark.parametrize('case', CASES)
def test_a_further_level_costs_its_pooling_alone(case):
    numbers = [number(count(levels=levels, **CASES[case])) for levels in (2, 3, 5)]
    for two, three, five in zip(*numbers):
        if case == 'patches':  # which fills up levels of few cells
            assert five - two <= 3 * 5
            continue
        # what roi_align writes to; casting and padding where levels differ
        assert five - three == 2 * (three - two) and three - two <= 2
