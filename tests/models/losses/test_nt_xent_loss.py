import pytest
import torch
import torch.nn.functional as F

from mmdet_contrast.models.losses import NTXentLoss


@pytest.mark.parametrize('count, temperature', [(2, 0.1), (100, 0.5)])
@pytest.mark.parametrize('package', ['pytorch_metric_learning', 'lightly'])
def test_equals_public_implementations(package, count, temperature, make_pairs):
    losses = pytest.importorskip(
        'lightly.loss' if package == 'lightly' else 'pytorch_metric_learning.losses',
        reason='the reference',
    )
    query, key = (x.detach().float() for x in make_pairs(count)[:2])
    theirs = losses.NTXentLoss(temperature)
    if package == 'pytorch_metric_learning':
        theirs = losses.SelfSupervisedLoss(theirs)
    ours = NTXentLoss(temperature, 'all')(query, key)
    torch.testing.assert_close(ours, theirs(query, key), atol=1e-6, rtol=1e-6)


def test_pytorch_metric_learning_with_labels_takes_every_positive_apart(make_pairs):
    # what it does with class labels: a term for each positive, other positives left out
    losses = pytest.importorskip('pytorch_metric_learning.losses', reason='the reference')
    query, key, labels, _ = (x.detach() for x in make_pairs(8))
    rows, labels = torch.cat((query, key)), labels.repeat(2)
    theirs = losses.NTXentLoss(0.5)(rows, labels)
    points, terms = F.normalize(rows, dim=1), []
    for i in range(16):
        negative = torch.exp(points[labels != labels[i]] @ points[i] / 0.5).sum()
        for p in range(16):
            if p != i and labels[p] == labels[i]:
                positive = torch.exp(points[p] @ points[i] / 0.5)
                terms.append(-torch.log(positive / (positive + negative)))
    torch.testing.assert_close(theirs, sum(terms) / len(terms), atol=1e-6, rtol=1e-6)
    # where only partners share a label there is nothing to differ in
    alone = torch.arange(8)
    theirs = losses.NTXentLoss(0.5)(rows, alone.repeat(2))
    torch.testing.assert_close(NTXentLoss()(query, key, alone), theirs, atol=1e-6, rtol=1e-6)


def test_unknown_kind_of_negatives():
    with pytest.raises(ValueError, match="negatives='others'"):
        NTXentLoss(negatives='others')
