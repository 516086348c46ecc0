import pytest
import torch
import torch.nn.functional as F
from readable_losses import with_background

from mmdet_contrast.models.losses import TripletLoss


def apart(a, b):
    return 1 - a @ b / (a.norm() * b.norm())


def readable_loop(query, key, labels, groups, background, use, margin):
    """Triplets one by one: the mean over the negatives of an anchor, then over the anchors."""
    count, points = len(query), [*query, *key]
    total = (query.sum() + key.sum()) * 0
    for i, anchor in enumerate(points):
        row = i % count
        positive = apart(anchor, points[(i + count) % (2 * count)])
        negatives = []
        for k, other in enumerate(points):
            column = k % count
            known = labels is not None and labels[row] >= 0
            if column == row or (known and labels[row] == labels[column]):
                continue
            if groups is None or groups[row] == groups[column]:
                negatives.append(apart(anchor, other))
        negatives += [apart(anchor, x) for k, x in enumerate(background) if use[row, k]]
        if negatives:
            total = total + sum(F.relu(positive - n + margin) for n in negatives) / len(negatives)
    return total / (2 * count)


@pytest.mark.parametrize(
    'known, by_image, count', [(True, True, 9), (True, False, 2), (False, False, 1)]
)
def test_equals_readable_loop(known, by_image, count, make_pairs):
    query, key, labels, groups = make_pairs(count)
    labels, groups = labels if known else None, groups if by_image else None
    background, use = torch.randn(3, 6, dtype=torch.double), torch.rand(count, 3) > 0.5
    call = (query, key, labels, groups, background, use)
    value = with_background(TripletLoss(0.7, loss_weight=1.0), *call)
    expected = readable_loop(*call, 0.7)
    torch.testing.assert_close(value, expected)
    gradients = (torch.autograd.grad(x, (query, key)) for x in (value, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('count', [2, 3, 20])
def test_equals_pytorch_metric_learning(count, make_pairs):
    losses = pytest.importorskip('pytorch_metric_learning.losses', reason='the reference')
    from pytorch_metric_learning import distances, reducers

    cosine = distances.CosineSimilarity()
    query, key, _, _ = make_pairs(count)
    # as similarities they measure cos; margins are those of 1 - cos all the same
    theirs = losses.TripletMarginLoss(0.4, distance=cosine, reducer=reducers.MeanReducer())
    inputs, labels = torch.cat((query, key)), torch.arange(count).repeat(2)
    ours = TripletLoss(0.4, loss_weight=1.0)(query, key)
    torch.testing.assert_close(ours, theirs(inputs, labels), atol=1e-6, rtol=1e-6)


def test_leaves_the_loss_of_re_identification_alone():
    from mmdet.models.losses import TripletLoss as Other
    from mmdet.registry import MODELS

    assert MODELS.get('TripletLoss') is Other and MODELS.get('PairTripletLoss') is TripletLoss
