import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_contrast.models.losses import NTXentLoss, nt_xent_loss


def readable_loop(query, key, labels, groups, temperature, negatives, background=(), use=None):
    """NT-Xent, one anchor and one candidate at a time."""
    count = len(query)
    points = [x / x.norm() for x in (*query, *key)]
    extra = [x / x.norm() for x in background]
    total = 0.0
    for i, anchor in enumerate(points):
        partner = (i + count) % (2 * count)
        positive = torch.exp(anchor @ points[partner] / temperature)
        denominator = positive
        for k, other in enumerate(points):
            if k in (i, partner):
                continue
            if groups is not None and groups[k % count] != groups[i % count]:
                continue
            if negatives == 'other_class' and labels[k % count] == labels[i % count]:
                continue
            denominator = denominator + torch.exp(anchor @ other / temperature)
        for k, other in enumerate(extra):
            if use is None or use[i % count, k]:
                denominator = denominator + torch.exp(anchor @ other / temperature)
        total = total - torch.log(positive / denominator)
    return total / (2 * count)


def make(count, dim=6, classes=3, images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(count, dim, dtype=torch.double, generator=generator)
    key = torch.randn(count, dim, dtype=torch.double, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    groups = torch.randint(images, (count,), generator=generator)
    return query, key, labels, groups


@pytest.mark.parametrize('negatives', ['all', 'other_class'])
@pytest.mark.parametrize('by_image', [False, True])
@pytest.mark.parametrize('count', [1, 2, 5, 17])
@pytest.mark.parametrize('temperature', [0.07, 0.5])
def test_equals_readable_loop(negatives, by_image, count, temperature):
    query, key, labels, groups = make(count)
    groups = groups if by_image else None
    query.requires_grad_()
    key.requires_grad_()
    loss = NTXentLoss(temperature, negatives)(query, key, labels, groups)
    expected = readable_loop(query, key, labels, groups, temperature, negatives)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (query, key)), torch.autograd.grad(expected, (query, key))
    ):
        torch.testing.assert_close(ours, theirs)


def test_background_equals_readable_loop():
    query, key, labels, groups = make(6)
    background = torch.randn(4, 6, dtype=torch.double)
    mask = torch.rand(6, 4) > 0.5
    loss = NTXentLoss()(query, key, labels, groups, background=background, background_mask=mask)
    expected = readable_loop(query, key, labels, groups, 0.5, 'other_class', background, mask)
    torch.testing.assert_close(loss, expected)


def test_an_unknown_label_is_another_than_any(make_pairs):
    query, key, labels, groups = make_pairs(9)
    assert (labels == -1).sum() > 1
    known = torch.where(labels < 0, 100 + torch.arange(9), labels)
    expected = readable_loop(query, key, known, groups, 0.5, 'other_class')
    torch.testing.assert_close(NTXentLoss()(query, key, labels, groups), expected)


def test_pytorch_metric_learning_with_labels_takes_every_positive_apart():
    # what it does with class labels: a term for each positive, other positives left out
    losses = pytest.importorskip('pytorch_metric_learning.losses')
    query, key, labels, _ = make(8)
    theirs = losses.NTXentLoss(0.5)(torch.cat((query, key)), labels.repeat(2))
    points = torch.nn.functional.normalize(torch.cat((query, key)), dim=1)
    labels = labels.repeat(2)
    terms = []
    for i in range(16):
        negative = torch.exp(points[labels != labels[i]] @ points[i] / 0.5).sum()
        for p in range(16):
            if p != i and labels[p] == labels[i]:
                positive = torch.exp(points[p] @ points[i] / 0.5)
                terms.append(-torch.log(positive / (positive + negative)))
    torch.testing.assert_close(theirs, sum(terms) / len(terms), atol=1e-6, rtol=1e-6)
    # where only partners share a label there is nothing to differ in
    alone = torch.arange(8)
    theirs = losses.NTXentLoss(0.5)(torch.cat((query, key)), alone.repeat(2))
    torch.testing.assert_close(NTXentLoss()(query, key, alone), theirs, atol=1e-6, rtol=1e-6)


def test_hand_worked():
    # two orthogonal pairs, each partner equal: s(positive) = 1, s(negative) = 0, tau = 1
    query = torch.eye(2)
    loss = NTXentLoss(1.0, 'all')(query, query.clone())
    assert loss.item() == pytest.approx(math.log((math.e + 2) / math.e))


@pytest.mark.parametrize('count', [2, 3, 16, 100])
@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_equals_pytorch_metric_learning(count, temperature):
    losses = pytest.importorskip('pytorch_metric_learning.losses')
    query, key, _, _ = make(count)
    theirs = losses.SelfSupervisedLoss(losses.NTXentLoss(temperature))(query, key)
    ours = NTXentLoss(temperature, 'all')(query, key)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('count', [2, 3, 16, 100])
@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_equals_lightly(count, temperature):
    loss = pytest.importorskip('lightly.loss')
    query, key, _, _ = (x.float() for x in make(count))
    theirs = loss.NTXentLoss(temperature)(query, key)
    ours = NTXentLoss(temperature, 'all')(query, key)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('negatives', ['all', 'other_class'])
def test_gradcheck(negatives):
    query, key, labels, groups = make(5)
    loss = NTXentLoss(0.5, negatives)

    def function(q, k, b):
        return loss(q, k, labels, groups, background=b)

    background = torch.randn(3, 6, dtype=torch.double, requires_grad=True)
    inputs = (query.requires_grad_(), key.requires_grad_(), background)
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize('negatives', ['all', 'other_class'])
@pytest.mark.parametrize('max_elements', [1, 40, 200])
def test_slices_give_the_same(negatives, max_elements):
    query, key, labels, groups = make(9)
    query.requires_grad_()
    background = torch.randn(2, 6, dtype=torch.double, requires_grad=True)
    results = []
    for size in (max_elements, 2**20):
        loss = NTXentLoss(0.5, negatives, max_elements=size)(
            query, key, labels, groups, background=background
        )
        results.append((loss, *torch.autograd.grad(loss, (query, background))))
    for sliced, whole in zip(*results):
        torch.testing.assert_close(sliced, whole)


def test_anchors_split_the_sum():
    query, key, labels, groups = make(8)
    loss = NTXentLoss()
    chosen = torch.tensor([True, False] * 4)
    parts = [loss(query, key, labels, anchors=a, avg_factor=16) for a in (chosen, ~chosen)]
    torch.testing.assert_close(sum(parts), loss(query, key, labels))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 1000), st.sampled_from(['all', 'other_class']))
def test_laws(count, seed, negatives):
    query, key, labels, groups = make(count, seed=seed)
    loss = NTXentLoss(0.5, negatives)
    value = loss(query, key, labels, groups)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    permuted = loss(query[order], key[order], labels[order], groups[order])
    torch.testing.assert_close(permuted, value)
    torch.testing.assert_close(loss(key, query, labels, groups), value)
    torch.testing.assert_close(loss(3 * query, 0.1 * key, labels, groups), value)
    assert value >= 0


def test_anchor_without_negatives_is_zero():
    query, key, _, _ = make(4)
    one_class = torch.zeros(4, dtype=torch.long)
    query.requires_grad_()
    loss = NTXentLoss()(query, key, one_class)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(query.grad).all()
    assert NTXentLoss(negatives='all')(query[:1], key[:1]).item() == pytest.approx(0, abs=1e-12)


def test_nothing_is_zero_and_connected():
    query = torch.randn(0, 4, requires_grad=True)
    loss = NTXentLoss()(query, query.clone(), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss == 0 and query.grad is not None
    query = torch.randn(3, 4, requires_grad=True)
    nobody = torch.zeros(3, dtype=torch.bool)
    loss = NTXentLoss(0.5, 'all')(query, query.clone(), anchors=nobody)
    loss.backward()
    assert loss == 0 and query.grad.abs().sum() == 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision_is_computed_in_float32(dtype):
    query, key, labels, _ = make(40, dim=32)
    query, key = query.to(dtype), key.to(dtype)
    loss = NTXentLoss(0.01)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(query.requires_grad_(), key, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(query.grad).all()
    torch.testing.assert_close(value, loss(query.float(), key.float(), labels))


def test_zero_embeddings_are_finite():
    query = torch.zeros(3, 4, requires_grad=True)
    loss = NTXentLoss(negatives='all')(query, torch.zeros(3, 4))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(query.grad).all()


def test_loss_weight():
    query, key, labels, _ = make(4)
    torch.testing.assert_close(
        NTXentLoss(loss_weight=0.5)(query, key, labels), 0.5 * NTXentLoss()(query, key, labels)
    )


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(temperature=0), 'temperature'),
        (dict(negatives='others'), "one of \\('all', 'other_class'\\)"),
    ],
)
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NTXentLoss(**kwargs)


def test_wrong_inputs():
    loss = NTXentLoss()
    with pytest.raises(ValueError, match='got no labels'):
        loss(torch.randn(3, 4), torch.randn(3, 4))
    with pytest.raises(ValueError, match='one shape'):
        loss(torch.randn(3, 4), torch.randn(2, 4), torch.zeros(3))
    with pytest.raises(ValueError, match='labels of shape'):
        loss(torch.randn(3, 4), torch.randn(3, 4), torch.zeros(2))
    rows = torch.randn(3, 4)
    with pytest.raises(ValueError, match='nt_xent_loss .*got no labels'):
        nt_xent_loss(rows, rows, negatives='other_class')
    with pytest.raises(ValueError, match="nt_xent_loss got negatives='others', one of"):
        nt_xent_loss(rows, rows, negatives='others')


def test_the_function_alone_keeps_float32_under_autocast():
    query, key, labels, _ = (x.float() if x.is_floating_point() else x for x in make(5))
    expected = nt_xent_loss(query, key, labels, negatives='other_class')
    query.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        terms = nt_xent_loss(query, key, labels, negatives='other_class')
    assert terms.dtype == torch.float32
    torch.testing.assert_close(terms, expected)
    terms.sum().backward()
    assert query.grad.isfinite().all()


def test_the_function_alone_without_pairs_or_anchors():
    for count in (0, 3):
        query, key = torch.randn(2, count, 6)
        query.requires_grad_()
        terms = nt_xent_loss(query, key, anchors=torch.zeros(count, dtype=torch.bool))
        assert terms.shape == (0,)
        terms.sum().backward()
        assert query.grad.abs().sum() == 0
