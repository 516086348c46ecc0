"""The number of the branch's operators: on a GPU its time is that of launching them."""

import pytest
import torch
from _operator_calls import OperatorCalls
from contrast_batches import build, make_feats, make_samples


def count(images=2, boxes=20, levels=3, **kwargs):
    """Count the operators of the forward and of the backward pass of a step."""
    strides = (8, 16, 32, 64, 128)[:levels]
    module = build(in_channels=16, strides=strides, **{**dict(queue=dict(size=8)), **kwargs})
    samples = make_samples((boxes,) * images)
    for sample in samples:
        # crowds are rare
        sample.pop('ignored_instances', None)
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
    return sum(calls[0].kernels.values()), sum(calls[1].kernels.values())


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


# Beside them there are two kernels of roi_align for each level, no operators of PyTorch's. There
# are up to three more with torch 2.1 than with 2.13.
@pytest.mark.parametrize(
    'case, most',
    [
        ('defaults', 180),
        ('jitter', 188),
        ('supcon', 197),
        ('simsiam', 90),
        ('triplet', 153),
        ('patches', 234),
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
