"""What all losses over pairs of embeddings promise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS

from mmdet_contrast.models.losses import PairCriterion

DIM = 6
CASES = {
    'nt_xent_all': dict(type='NTXentLoss', negatives='all'),
    'nt_xent_other_class': dict(type='NTXentLoss', negatives='other_class'),
    'supcon': dict(type='SupConLoss'),
    'patch_nce': dict(type='PatchNCELoss'),
    'patch_nce_batch': dict(type='PatchNCELoss', negatives='batch', detach_key=False),
    'simsiam': dict(type='SimSiamLoss', in_channels=DIM),
    'simsiam_ln': dict(type='SimSiamLoss', in_channels=DIM, hidden_channels=4, norm='LN'),
    'triplet': dict(type='PairTripletLoss', margin=1.0),
    'triplet_hard': dict(type='PairTripletLoss', margin=1.0, mining='hard'),
    'triplet_euclidean': dict(
        type='PairTripletLoss', margin=1.0, mining='semi_hard', distance='euclidean'
    ),
}
DETACHES_KEY = ('patch_nce',)
NOT_SYMMETRIC = ('patch_nce', 'patch_nce_batch')
LEARNS = ('simsiam', 'simsiam_ln')
every_loss = pytest.mark.parametrize('name', CASES)


def build(name, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(CASES[name], **kwargs)).double()


def options(labels, groups, count, seed=0):
    """Keyword arguments that use all there is."""
    generator = torch.Generator().manual_seed(seed + 1)
    return dict(
        labels=labels,
        groups=groups,
        background=torch.randn(3, DIM, dtype=torch.double, generator=generator),
        background_mask=torch.rand(count, 3, generator=generator) > 0.5,
        weights=torch.rand(count, generator=generator) + 0.1,
    )


@every_loss
def test_gradcheck(name, make_pairs):
    query, key, labels, groups = make_pairs(5)
    loss = build(name)
    keywords = options(labels, groups, 5)
    background = keywords.pop('background')
    # targets are constant for the gradient by intent: only what is learnt can be checked
    if name in DETACHES_KEY:
        function = lambda q: loss(q, key, background=background, **keywords)  # noqa: E731
        assert torch.autograd.gradcheck(function, query.requires_grad_())
    elif name in LEARNS:
        for parameter in loss.parameters():
            assert torch.autograd.gradcheck(
                lambda _: loss(query, key, background=background, **keywords), parameter
            )
    else:
        inputs = [x.requires_grad_() for x in (query, key, background)]
        function = lambda q, k, b: loss(q, k, background=b, **keywords)  # noqa: E731
        assert torch.autograd.gradcheck(function, inputs)


@every_loss
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 10), seed=st.integers(0, 1000))
def test_laws(name, make_pairs, count, seed):
    query, key, labels, groups = make_pairs(count, seed=seed)
    keywords = options(labels, groups, count, seed)
    loss = build(name)
    value = loss(query, key, **keywords)
    assert torch.isfinite(value)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    by_row = {k: v[order] for k, v in keywords.items() if k != 'background'}
    permuted = loss(query[order], key[order], background=keywords['background'], **by_row)
    torch.testing.assert_close(permuted, value)
    if name not in NOT_SYMMETRIC:
        torch.testing.assert_close(loss(key, query, **keywords), value)
    if name == 'triplet_euclidean' or name in LEARNS:
        return
    keywords['background'] = 7 * keywords['background']
    torch.testing.assert_close(loss(3 * query, 0.1 * key, **keywords), value)


@every_loss
def test_anchors_split_the_sum(name, make_pairs):
    # what the ranks of a distributed run compute adds up to what one process does
    query, key, labels, groups = make_pairs(8)
    loss = build(name)
    chosen = torch.tensor([True, False, False, True, True, False, True, False])
    keywords = options(labels, groups, 8)
    parts = [loss(query, key, anchors=a, avg_factor=16, **keywords) for a in (chosen, ~chosen)]
    torch.testing.assert_close(sum(parts), loss(query, key, avg_factor=16, **keywords))
    assert parts[0] != 0 and parts[1] != 0


@every_loss
def test_avg_factor_counts_both_embeddings_of_a_pair(name, make_pairs):
    query, key, labels, _ = make_pairs(7)
    loss = build(name, loss_weight=0.5)
    mean = loss(query, key, labels)
    torch.testing.assert_close(loss(query, key, labels, avg_factor=14), mean)
    torch.testing.assert_close(loss(query, key, labels, avg_factor=torch.tensor(28.0)), mean / 2)
    torch.testing.assert_close(2 * mean, build(name)(query, key, labels))


@every_loss
def test_weights(name, make_pairs):
    query, key, labels, groups = make_pairs(6)
    loss = build(name)
    weights = torch.tensor([0.0, 2.0, 0.5, 1.0, 0.0, 3.0], requires_grad=True)
    each = [
        loss(query, key, labels, groups, anchors=torch.arange(6) == i).detach() for i in range(6)
    ]
    total = sum(float(w) * x for w, x in zip(weights, each))
    value = loss(query, key, labels, groups, weights=weights)
    torch.testing.assert_close(value, total / 6.5)
    assert not value.requires_grad or name in LEARNS
    summed = loss(query, key, labels, groups, weights=weights, avg_factor=12)
    torch.testing.assert_close(summed, total / 6)
    assert loss(query, key, labels, weights=torch.zeros(6)).item() == 0
    equal = loss(query, key, labels, groups, weights=torch.full((6,), 0.25))
    torch.testing.assert_close(equal, loss(query, key, labels, groups))


@every_loss
def test_no_weight_has_a_gradient_of_zero_under_a_loss_scale(name):
    query, key = torch.randn(2, 4, DIM)
    query.requires_grad_()
    loss = build(name).float()
    value = loss(query, key, torch.tensor([0, 0, 1, 2]), weights=torch.zeros(4))
    (value * 2.0**16).backward()
    assert value.item() == 0 and query.grad.abs().max() == 0


@every_loss
@pytest.mark.parametrize('bad', [0.0, float('nan'), float('inf')])
def test_no_anchor_is_a_connected_zero(name, make_pairs, bad):
    loss = build(name)
    for count, anchors in ((0, None), (3, torch.zeros(3, dtype=torch.bool))):
        query = torch.full((count, DIM), bad, dtype=torch.double, requires_grad=True)
        key = query.detach().clone().requires_grad_()
        loss.zero_grad(set_to_none=True)
        value = loss(query, key, torch.zeros(count, dtype=torch.long), anchors=anchors)
        value.backward()
        assert value.item() == 0 and value.shape == ()
        assert query.grad.abs().sum() == 0
        assert (key.grad is None) == (name in DETACHES_KEY)
        assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in loss.parameters())


@every_loss
@pytest.mark.parametrize('count', [1, 4])
def test_one_pair_one_class_and_equal_embeddings_are_finite(name, make_pairs, count):
    loss = build(name)
    for query in (torch.zeros(count, DIM), torch.ones(count, DIM), torch.eye(count, DIM)):
        query = query.double().requires_grad_()
        value = loss(query, query * 1, torch.zeros(count, dtype=torch.long))
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(query.grad).all()


@every_loss
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision_is_computed_in_float32(name, make_pairs, dtype):
    query, key, labels, _ = make_pairs(40)
    query, key = query.to(dtype), key.to(dtype)
    loss = build(name).float()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(query.requires_grad_(), key, labels)
        nothing = loss(query[:0], key[:0], labels[:0])
    value.backward()
    assert value.dtype == nothing.dtype == torch.float32
    assert torch.isfinite(query.grad).all()
    torch.testing.assert_close(value, loss(query.float(), key.float(), labels))


@every_loss
def test_large_embeddings_are_finite(name, make_pairs):
    query, key, labels, _ = (x.float() if x.is_floating_point() else x for x in make_pairs(5))
    query.requires_grad_()
    value = build(name).float()(query * 1e4, key * -1e4, labels)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(query.grad).all()


@every_loss
def test_wrong_inputs(name):
    loss, rows = build(name), torch.randn(3, DIM, dtype=torch.double)
    labels = torch.zeros(3, dtype=torch.long)
    own = type(loss).__name__
    for message, args, kwargs in (
        ('of one shape', (rows, rows[:2]), {}),
        ('two tensors of floats', (rows.long(), rows.long()), {}),
        (r'labels of shape \(2,\), \(3,\) expected', (rows, rows, labels[:2]), {}),
        (r'groups of shape \(3, 1\)', (rows, rows, labels, labels[:, None]), {}),
        (r'weights of shape \(1,\)', (rows, rows, labels), dict(weights=torch.ones(1))),
        ('anchors of type torch.int64, torch.bool', (rows, rows, labels), dict(anchors=labels)),
        ('background of shape', (rows, rows, labels), dict(background=rows[:, :2])),
        (
            r'background_mask of shape \(3, 2\) for 3 pairs and 3 background',
            (rows, rows, labels),
            dict(background=rows, background_mask=torch.ones(3, 2, dtype=torch.bool)),
        ),
        (
            'for 3 pairs and no background embeddings',
            (rows, rows, labels),
            dict(background_mask=torch.ones(3, 2, dtype=torch.bool)),
        ),
        ('avg_factor=0, a number above 0', (rows, rows, labels), dict(avg_factor=0)),
    ):
        with pytest.raises(ValueError, match=f'{own} got .*{message}'):
            loss(*args, **kwargs)


class Alignment(PairCriterion):
    """A loss of one's own, as docs/objectives.md has it."""

    def terms(self, pairs):
        query, key = (torch.nn.functional.normalize(x, dim=1) for x in (pairs.query, pairs.key))
        terms = (query - key).square().sum(dim=1)
        if pairs.anchors is not None:
            terms = terms[pairs.anchors]
        return terms.repeat(2)


def test_a_loss_of_ones_own(make_pairs):
    query, key, _, _ = make_pairs(5)
    loss = Alignment(loss_weight=0.5)
    expected = 1 - torch.cosine_similarity(query, key)
    torch.testing.assert_close(loss(query, key), expected.mean())
    chosen = torch.tensor([True, False, True, False, False])
    torch.testing.assert_close(loss(query, key, anchors=chosen), expected[[0, 2]].mean())
    weights = torch.arange(5.0)
    torch.testing.assert_close(
        loss(query, key, weights=weights), (expected @ weights.double()) / 10
    )
    assert loss(query[:0], key[:0]).item() == 0
    with pytest.raises(NotImplementedError):
        PairCriterion()(query, key)
