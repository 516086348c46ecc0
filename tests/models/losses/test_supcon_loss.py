import math

import pytest
import torch
import torch.nn.functional as F
from readable_losses import supcon

from mmdet_contrast.models.losses import NTXentLoss, SupConLoss


@pytest.mark.parametrize('count, temperature', [(2, 0.1), (100, 0.5)])
def test_equals_pytorch_metric_learning(count, temperature, make_pairs):
    losses = pytest.importorskip('pytorch_metric_learning.losses', reason='the reference')
    labels = torch.arange(count) % max(2, count // 3)
    inputs = torch.cat(make_pairs(count)[:2]).detach().requires_grad_()
    theirs = losses.SupConLoss(temperature)(inputs, labels.repeat(2))
    ours = SupConLoss(temperature)(*inputs.chunk(2), labels)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    gradients = (torch.autograd.grad(x, inputs)[0] for x in (ours, theirs))
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_one_class_alone_is_a_loss_here_and_zero_in_pytorch_metric_learning(make_pairs):
    losses = pytest.importorskip('pytorch_metric_learning.losses', reason='the reference')
    query, key, _, _ = make_pairs(4)
    labels = torch.zeros(4, dtype=torch.long)
    assert losses.SupConLoss(0.1)(torch.cat((query, key)), labels.repeat(2)).item() == 0
    expected, _ = supcon(query, key, labels)
    assert expected > 0
    torch.testing.assert_close(SupConLoss(0.1)(query, key, labels), expected)


@pytest.mark.parametrize('labels', [torch.arange(7), torch.full((7,), -1), None])
def test_without_common_labels_it_is_nt_xent(labels, make_pairs):
    query, key, _, groups = make_pairs(7)
    expected = NTXentLoss(0.3, 'all')(query, key, groups=groups)
    torch.testing.assert_close(SupConLoss(0.3)(query, key, labels, groups), expected)


def mean_over_positives(query, key, labels, temperature, eps=0.0, with_self=False):
    """For each anchor what public implementations take the mean of, as they do."""
    features = F.normalize(torch.cat((query, key)), dim=1)
    labels = labels.repeat(2)
    logits = features @ features.T / temperature
    logits = logits - logits.amax(dim=1, keepdim=True)
    others = 1 - torch.eye(len(features), dtype=features.dtype)
    same = (labels[:, None] == labels).to(features.dtype)
    log_prob = logits - torch.log((torch.exp(logits) * others).sum(1, keepdim=True) + eps)
    positives = same * others
    return (positives * log_prob).sum(1) / (same if with_self else positives).sum(1)


def test_authors_factor_is_a_loss_weight(make_pairs):
    query, key, labels, _ = make_pairs(6)
    labels = labels.clamp(min=0)
    published = -(0.2 / 0.07) * mean_over_positives(query, key, labels, 0.2, eps=1e-9).mean()
    ours = SupConLoss(0.2, loss_weight=0.2 / 0.07)(query, key, labels)
    torch.testing.assert_close(ours, published, atol=1e-6, rtol=1e-6)


def test_authors_constant_saturates_at_low_temperatures():
    # 1e-9 is added to a sum of exponentials relative to the anchor's similarity with itself
    query, key = torch.eye(6, dtype=torch.double).chunk(2)
    labels = torch.arange(3)
    exact = -mean_over_positives(query, key, labels, 0.01).mean()
    saturated = -mean_over_positives(query, key, labels, 0.01, eps=1e-9).mean()
    assert exact.item() == pytest.approx(math.log(5))
    torch.testing.assert_close(SupConLoss(0.01)(query, key, labels), exact)
    assert saturated > 70


def test_fsce_counts_the_anchor_among_its_positives(make_pairs):
    query, key, _, _ = make_pairs(8)
    labels = torch.arange(8) % 2  # of 8 embeddings of each class 7 are positives
    fsce = -mean_over_positives(query, key, labels, 0.2, with_self=True).mean()
    torch.testing.assert_close(SupConLoss(0.2, loss_weight=7 / 8)(query, key, labels), fsce)
