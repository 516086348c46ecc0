"""Votes of neighbours and spread against loops and against lightly."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly_knn import lightly_knn_predict

from mmdet_contrast.evaluation.functional import (
    embedding_std,
    embeddings,
    knn_accuracy,
    knn_predict,
)


def clusters(count, dim, classes, generator, noise=1.0):
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(classes, (count,), generator=generator)
    return centres[labels] + noise * torch.randn(count, dim, generator=generator), labels


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    bank, bank_labels = clusters(300, 16, 7, generator, 2.0)
    queries, labels = clusters(50, 16, 7, generator, 2.0)
    return queries, labels, bank, bank_labels


def slow_predict(queries, bank, labels, classes, k, temperature):
    """One neighbour after the other."""
    ranking = []
    for query in queries.double():
        cosines = [(torch.dot(query, x) / query.norm() / x.norm()).item() for x in bank.double()]
        nearest = sorted(range(len(bank)), key=lambda i: -cosines[i])[:k]
        votes = [0.0] * classes
        for i in nearest:
            votes[labels[i]] += math.exp(cosines[i] / temperature)
        ranking.append(sorted(range(classes), key=lambda c: -votes[c]))
    return torch.tensor(ranking)


@pytest.mark.parametrize('k, temperature', [(1, 0.1), (20, 0.5), (1000, 0.1)])
def test_equals_the_slow_loop(data, k, temperature):
    queries, _, bank, labels = data
    ours = knn_predict(queries, bank, labels, 7, k, temperature)
    theirs = slow_predict(queries, bank, labels, 7, min(k, len(bank)), temperature)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('k', [50, 200])
def test_equals_lightly(data, k):
    queries, _, bank, labels = data
    unit, unit_bank = F.normalize(queries, dim=1), F.normalize(bank, dim=1)
    theirs = lightly_knn_predict()(unit, unit_bank.T, labels, 7, knn_k=k, knn_t=0.1)
    ours = knn_predict(queries, bank, labels, 7, k=k)
    # every class has votes among so many neighbours, so that no order is left to chance
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('chunk', [1, 2000, 10**9])
def test_chunks_change_nothing(data, chunk, monkeypatch):
    queries, _, bank, labels = data
    whole = knn_predict(queries, bank, labels, 7, k=20)
    monkeypatch.setattr(embeddings, '_CHUNK', chunk)
    assert torch.equal(knn_predict(queries, bank, labels, 7, k=20), whole)


def test_a_low_temperature_stays_finite(data):
    queries, _, bank, labels = data
    ours = knn_predict(queries, bank, labels, 7, k=200, temperature=1e-3)
    torch.testing.assert_close(ours[:, 0], knn_predict(queries, bank, labels, 7, k=1)[:, 0])


def test_accuracy_by_hand():
    bank, labels = torch.eye(3), torch.tensor([0, 1, 2])
    queries = torch.tensor([[3.0, 0, 0], [0, 2, 1], [0, 1, 2], [1, 0, 2]])
    # right, wrong (1), wrong (2), right
    truth = torch.tensor([0, 2, 1, 2])
    values = knn_accuracy(queries, truth, bank, labels, 3, topk=(1, 2, 5), k=3)
    assert values['top1'] == 0.5
    assert values['top2'] == 1.0
    # fewer classes than 5
    assert values['top5'] == 1.0
    # class 0: 1 of 1, class 1: 0 of 1, class 2: 1 of 2
    assert values['class_mean'] == pytest.approx(0.5)


def test_embeddings_that_are_not_finite_have_no_ranking():
    with pytest.raises(ValueError, match='not finite'):
        knn_predict(torch.full((2, 4), torch.nan), torch.ones(3, 4), torch.tensor([0, 1, 1]), 2)


def units(x):
    return [row / row.norm() for row in x.double()]


@pytest.mark.parametrize('count, dim', [(2, 3), (40, 8)])
def test_std_equals_a_loop(count, dim):
    x = torch.randn(count, dim) * 3
    rows = units(x)
    deviations = []
    for d in range(dim):
        values = [row[d].item() for row in rows]
        mean = sum(values) / count
        deviations.append(math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1)))
    assert embedding_std(x) == pytest.approx(sum(deviations) / dim, rel=1e-5)


def test_std_equals_lightly():
    try:
        from lightly.utils import debug
    except (ImportError, AttributeError) as error:
        # lightly 1.4 does not know the torchvision of today
        pytest.skip(f'the public reference: {error}')
    x = torch.randn(64, 32) + 0.3
    assert embedding_std(x) == pytest.approx(debug.std_of_l2_normalized(x).item(), rel=1e-6)
