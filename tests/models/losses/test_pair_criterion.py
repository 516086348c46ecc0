"""What all losses over pairs of embeddings promise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from readable_losses import loop_of, with_background

from mmdet_contrast.models.losses import PairBatch

DIM, FALLBACK, EXTRA = 6, 2, 3
CASES = {
    'nt_xent_all': dict(type='NTXentLoss', negatives='all'),
    'nt_xent_other_class': dict(type='NTXentLoss', negatives='other_class'),
    'supcon': dict(type='SupConLoss'),
    'patch_nce': dict(type='PatchNCELoss'),
    'simsiam': dict(type='SimSiamLoss', in_channels=DIM, loss_weight=1.0),
    'triplet': dict(type='PairTripletLoss', margin=1.0),
}
every_loss = pytest.mark.parametrize('name', CASES)
with_chance = pytest.mark.parametrize('name', list(CASES)[:4])


def build(name, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(CASES[name], **kwargs)).double()


def make_batch(make_pairs, count, seed=0, levels=2):
    """Pairs with everything that a batch may have, of its own on each level."""
    query, key, _, _ = make_pairs(count, levels, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)

    def chance(*shape):
        return torch.rand(levels, count, *shape, generator=generator) > 0.3

    extra = torch.randn(levels, FALLBACK + EXTRA, DIM, dtype=torch.double, generator=generator)
    return PairBatch(
        torch.cat((query, key, extra), dim=1).detach().requires_grad_(),
        labels=torch.randint(-1, 3, (levels, count), generator=generator),
        valid=chance(),
        groups=torch.randint(2, (levels, count), generator=generator),
        own=chance(),
        fallback_mask=chance(FALLBACK),
        queue_mask=chance(EXTRA),
    )


def choose(batch, level, pairs):
    """The chosen pairs of one level."""
    count = batch.num_pairs
    rows = torch.cat((pairs, pairs + count, torch.arange(2 * count, batch.rows.shape[1])))
    rest = [None if x is None else x[level : level + 1, pairs] for x in batch[1:]]
    return PairBatch(batch.rows[level : level + 1, rows], *rest)


@pytest.mark.parametrize('name', ['nt_xent_all', 'nt_xent_other_class', 'supcon', 'patch_nce'])
@pytest.mark.parametrize('by_image', [False, True])
@pytest.mark.parametrize('count, temperature', [(1, 0.5), (2, 0.07), (17, 0.07)])
def test_equals_readable_loop(name, by_image, count, temperature, make_pairs):
    query, key, labels, groups = make_pairs(count)
    background, use = torch.randn(4, DIM, dtype=torch.double), torch.rand(count, 4) > 0.5
    call = (query, key, labels, groups if by_image else None, background, use)
    criterion = build(name, temperature=temperature)
    loss, (expected, _) = with_background(criterion, *call), loop_of(criterion)(*call)
    torch.testing.assert_close(loss, expected)
    # to PatchNCE keys are constant
    inputs = query if name == 'patch_nce' else (query, key)
    torch.testing.assert_close(*(torch.autograd.grad(x, inputs) for x in (loss, expected)))


@every_loss
def test_gradcheck(name, make_pairs):
    batch, loss = make_batch(make_pairs, 5), build(name)

    def function(rows):
        return loss.compare(batch._replace(rows=rows)).mean()

    if name == 'simsiam':  # targets are constant: only what learns can be checked
        function, inputs = lambda *_: loss.compare(batch).mean(), tuple(loss.parameters())
    elif name == 'patch_nce':
        function, inputs = (
            lambda query: loss.compare(
                batch._replace(rows=torch.cat((query, batch.rows[:, 5:]), dim=1))
            ).mean(),
            batch.rows[:, :5].detach().requires_grad_(),
        )
    else:
        inputs = batch.rows
    assert torch.autograd.gradcheck(function, inputs)


@every_loss
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 10), seed=st.integers(0, 1000))
def test_laws(name, make_pairs, count, seed):
    loss, batch = build(name), make_batch(make_pairs, count, seed)
    value = loss.compare(batch).mean()
    assert value.isfinite().all()
    # levels do not see one another, nor does the order of the pairs matter
    order = torch.randperm(count)
    for level in (0, 1):
        alone = loss.compare(choose(batch, level, order)).mean()
        torch.testing.assert_close(alone, value[level : level + 1])
    query, key, extra = batch.rows.split((count, count, FALLBACK + EXTRA), dim=1)
    if name != 'patch_nce':
        swapped = batch._replace(rows=torch.cat((key, query, extra), dim=1))
        torch.testing.assert_close(loss.compare(swapped).mean(), value)
    if name != 'simsiam':
        scaled = batch._replace(rows=torch.cat((3 * query, 0.1 * key, 7 * extra), dim=1))
        torch.testing.assert_close(loss.compare(scaled).mean(), value)


@every_loss
def test_pairs_that_are_not_valid_are_not_there(name, make_pairs):
    loss, batch = build(name), make_batch(make_pairs, 9)
    batch = batch._replace(own=None)
    values = loss.compare(batch).mean()
    for level, valid in enumerate(batch.valid):
        removed = choose(batch, level, valid.nonzero()[:, 0])
        torch.testing.assert_close(loss.compare(removed).mean()[0], values[level])
    values.sum().backward()
    for rows, valid in zip(batch.rows.grad, batch.valid):
        assert rows[:18][~valid.repeat(2)].abs().sum() == 0


@every_loss
def test_fallback_is_for_pairs_that_are_compared_with_no_other(name, make_pairs):
    loss, batch = build(name), make_batch(make_pairs, 7)
    batch = batch._replace(
        labels=torch.tensor([[0, 0, 1, 2, 2, -1, 1]]),
        groups=torch.tensor([[0, 0, 1, 1, 2, 2, 3]]),
        valid=torch.ones(1, 7, dtype=torch.bool),
    )
    by_class = name not in ('patch_nce', 'nt_xent_all')
    alone = torch.tensor([by_class, by_class, False, False, False, False, True])
    mask = torch.cat((batch.fallback_mask & alone[:, None], batch.queue_mask), dim=2)
    expected = loss.compare(batch._replace(fallback_mask=None, queue_mask=mask))
    torch.testing.assert_close(loss.compare(batch).values, expected.values)
    for never in (batch.fallback_mask & False, batch.fallback_mask | True):
        other = loss.compare(batch._replace(fallback_mask=never)).values
        assert torch.equal(other[:, 2:6], expected.values[:, 2:6])


@every_loss
def test_the_terms_of_ranks_add_up_to_those_of_one_process(name, make_pairs):
    loss, batch = build(name), make_batch(make_pairs, 8, seed=1)
    whole, *parts = (loss.compare(batch._replace(own=own)) for own in (None, batch.own, ~batch.own))
    sums = [(terms.values * terms.counted).sum(dim=1) for terms in (whole, *parts)]
    torch.testing.assert_close(sums[1] + sums[2], sums[0])
    assert all(x.abs().min() > 0 for x in sums)


@every_loss
def test_call(name, make_pairs):
    loss = build(name)
    query, key, labels, groups = make_pairs(7, 3)
    values = loss(query, key, labels, groups)
    assert values.shape == (3,)
    gradients = torch.autograd.grad(values.sum(), query)[0]
    for level in range(3):
        one = loss(query[level], key[level], labels, groups)
        torch.testing.assert_close(one, values[level])
        torch.testing.assert_close(torch.autograd.grad(one, query)[0][level], gradients[level])
    first = loss(query[:1], key[:1], labels, groups)
    assert first.shape == (1,)
    torch.testing.assert_close(first[0], values[0])
    half, whole = (build(name, loss_weight=w)(query, key, labels, groups) for w in (0.5, 1.0))
    torch.testing.assert_close(2 * half, whole)
    unknown = torch.full((7,), -1)
    torch.testing.assert_close(loss(query, key), loss(query, key, unknown, torch.zeros(7)))


@every_loss
@pytest.mark.parametrize('levels', [(), (3,)])
def test_no_pair_is_a_connected_zero(name, levels):
    loss = build(name)
    query, key = (torch.zeros(*levels, 0, DIM).double().requires_grad_() for _ in range(2))
    labels = torch.zeros(0, dtype=torch.long)
    value = loss(query, key, labels, labels)
    value.sum().backward()
    assert value.shape == levels and (value == 0).all()
    assert query.grad is not None
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in loss.parameters())


@every_loss
def test_no_pair_that_counts_is_a_connected_zero(name, make_pairs):
    loss, batch = build(name), make_batch(make_pairs, 4)
    for field in ('valid', 'own'):
        batch.rows.grad = None
        nobody = batch._replace(**{field: torch.zeros(1, 4, dtype=torch.bool)})
        value = loss.compare(nobody).mean()
        value.sum().backward()
        assert (value == 0).all() and batch.rows.grad.abs().sum() == 0
        assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in loss.parameters())


@every_loss
@pytest.mark.parametrize('count', [1, 4])
def test_one_pair_one_class_and_equal_embeddings_are_finite(name, count):
    loss = build(name)
    for query in (torch.zeros(count, DIM), torch.ones(count, DIM), torch.eye(count, DIM)):
        query = query.double().requires_grad_()
        value = loss(query, query * 1, torch.zeros(count, dtype=torch.long))
        value.backward()
        assert value.isfinite() and query.grad.isfinite().all()


@every_loss
def test_mixed_precision_is_computed_in_float32(name, make_pairs):
    query, key, labels, _ = make_pairs(40)
    # large ones, too, are finite
    query, key = (100 * x.detach().half() for x in (query, key))
    loss = build(name).float()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(query.requires_grad_(), key, labels)
        nothing = loss(query[:0], key[:0], labels[:0])
    value.backward()
    assert value.dtype == nothing.dtype == torch.float32
    assert query.grad.isfinite().all()
    torch.testing.assert_close(value, loss(query.float(), key.float(), labels))


@with_chance
def test_equal_embeddings_are_at_the_chance_level(name, make_pairs):
    batch = make_batch(make_pairs, 9)
    terms = build(name).compare(batch._replace(rows=torch.ones_like(batch.rows)))
    # only terms that count have a meaning
    values, chance = (
        x.expand_as(terms.values)[terms.counted] for x in (terms.values, terms.chance)
    )
    assert values.max() > 1
    torch.testing.assert_close(values, chance.double(), atol=1e-6, rtol=0)
