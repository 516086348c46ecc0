"""kNN votes against a loop over neighbours and against lightly."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly_knn import lightly_knn_predict

from mmdet_contrast.evaluation.functional import knn_accuracy, knn_predict


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


@pytest.mark.parametrize('k', [1, 5, 20, 1000])
@pytest.mark.parametrize('temperature', [0.1, 0.5])
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


@pytest.mark.parametrize('query_chunk, bank_chunk', [(1, 1), (7, 13), (1000, 299)])
def test_chunks_change_nothing(data, query_chunk, bank_chunk):
    queries, _, bank, labels = data
    whole = knn_predict(queries, bank, labels, 7, k=20)
    parts = knn_predict(
        queries, bank, labels, 7, k=20, query_chunk=query_chunk, bank_chunk=bank_chunk
    )
    torch.testing.assert_close(parts, whole)


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


def test_classes_without_boxes_are_left_out_of_the_mean():
    values = knn_accuracy(
        torch.eye(2), torch.tensor([1, 3]), torch.eye(2), torch.tensor([1, 1]), num_classes=6
    )
    assert values['top1'] == 0.5 and values['class_mean'] == pytest.approx(0.5)
    # votes: class 1; then 0, 2, 3, 4 without any
    assert values['top5'] == 1.0


def test_no_queries_is_an_empty_ranking():
    ranking = knn_predict(torch.zeros(0, 4), torch.ones(2, 4), torch.tensor([0, 1]), 3)
    assert ranking.shape == (0, 3)
    with pytest.raises(ValueError, match='no query'):
        knn_accuracy(
            torch.zeros(0, 4), torch.zeros(0).long(), torch.ones(2, 4), torch.tensor([0, 1]), 3
        )


@pytest.mark.parametrize('shape', [(1,), (3,), (2, 1)])
def test_labels_that_do_not_fit_the_queries(shape):
    bank, labels = torch.eye(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r'query labels of shape .* for 2 queries'):
        knn_accuracy(torch.eye(2), torch.zeros(shape).long(), bank, labels, num_classes=2)


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(bank=torch.zeros(0, 4), bank_labels=torch.zeros(0).long()), 'empty bank'),
        (dict(queries=torch.ones(2, 5)), r'\(2, 5\) and a bank of shape \(3, 4\)'),
        (dict(bank_labels=torch.tensor([0, 1])), 'one label for each'),
        (dict(bank_labels=torch.tensor([0, 1, 2])), 'from 0 to 2, classes from 0 to 1'),
        (dict(queries=torch.full((2, 4), float('nan'))), 'not finite'),
        (dict(k=0), 'k=0, a positive number'),
        (dict(temperature=0.0), 'temperature=0.0, a positive number'),
    ],
)
def test_bad_input_is_one_sentence(changes, words):
    arguments = dict(
        queries=torch.ones(2, 4),
        bank=torch.ones(3, 4),
        bank_labels=torch.tensor([0, 1, 1]),
        num_classes=2,
    )
    with pytest.raises(ValueError, match=words):
        knn_predict(**{**arguments, **changes})
