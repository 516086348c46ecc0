"""Spread, alignment and uniformity against loops over pairs."""

import math

import pytest
import torch

from mmdet_contrast.evaluation.functional import alignment, embedding_std, uniformity


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
    debug = pytest.importorskip('lightly.utils.debug', reason='the public reference')
    x = torch.randn(64, 32) + 0.3
    assert embedding_std(x) == pytest.approx(debug.std_of_l2_normalized(x).item(), rel=1e-6)


def test_std_of_a_healthy_and_of_a_collapsed_embedding():
    assert embedding_std(torch.randn(4000, 64)) == pytest.approx(1 / 8, rel=0.02)
    assert embedding_std(torch.ones(10, 64) * torch.rand(10, 1).add(0.1)) < 1e-6


@pytest.mark.parametrize('alpha', [1.0, 2.0])
def test_alignment_equals_a_loop(alpha):
    first, second = torch.randn(30, 8), torch.randn(30, 8)
    expected = [(a - b).norm().item() ** alpha for a, b in zip(units(first), units(second))]
    assert alignment(first, second, alpha) == pytest.approx(sum(expected) / 30, rel=1e-5)


def test_alignment_of_extremes():
    x = torch.randn(5, 8)
    assert alignment(x, 3 * x) == pytest.approx(0, abs=1e-6)
    assert alignment(x, -x) == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize('chunk', [1, 7, 1000])
@pytest.mark.parametrize('t', [0.5, 2.0])
def test_uniformity_equals_a_loop(chunk, t):
    x = torch.randn(25, 6)
    rows = units(x)
    terms = [
        math.exp(-t * (rows[i] - rows[j]).square().sum().item())
        for i in range(25)
        for j in range(i + 1, 25)
    ]
    expected = math.log(sum(terms) / len(terms))
    assert uniformity(x, t, chunk) == pytest.approx(expected, rel=1e-5)


def test_uniformity_of_extremes():
    assert uniformity(torch.ones(10, 4)) == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.randn(2000, 256)) == pytest.approx(-4, abs=0.1)
    # far apart, with a factor that underflows a single exponential in float32
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), t=100.0) == pytest.approx(-400)


@pytest.mark.parametrize(
    'call, words',
    [
        (lambda: embedding_std(torch.ones(1, 4)), r'\(1, 4\).*at least 2'),
        (lambda: uniformity(torch.ones(0, 4)), 'at least 2'),
        (lambda: alignment(torch.ones(0, 4), torch.ones(0, 4)), 'at least 1'),
        (lambda: alignment(torch.ones(2, 4), torch.ones(3, 4)), 'same shape'),
        (lambda: embedding_std(torch.full((2, 4), float('inf'))), 'not finite'),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
