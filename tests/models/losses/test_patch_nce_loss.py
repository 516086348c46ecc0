import math

import pytest
import torch
import torch.nn.functional as F

from mmdet_contrast.models.losses import PatchNCELoss


def readable_loop(query, key, groups, temperature, background=(), use=None):
    """PatchNCE, one query and one key at a time."""
    queries, keys, extra = ([x / x.norm() for x in part] for part in (query, key, background))
    total = 0.0
    for i, q in enumerate(queries):
        denominator = 0.0
        for j, k in enumerate(keys):
            if groups is None or groups[i] == groups[j]:
                denominator = denominator + torch.exp(q @ k / temperature)
        for j, k in enumerate(extra):
            if use is None or use[i, j]:
                denominator = denominator + torch.exp(q @ k / temperature)
        total = total - torch.log(torch.exp(q @ keys[i] / temperature) / denominator)
    return total / len(query)


def published_formula(query, key, images, temperature):
    """The authors' steps: the diagonal apart, -10 in its place, the target in front."""
    size = len(query) // images
    key = key.detach()
    positive = (query * key).sum(dim=1, keepdim=True)
    similarity = torch.bmm(
        query.reshape(images, size, -1), key.reshape(images, size, -1).transpose(1, 2)
    )
    similarity = similarity.masked_fill(torch.eye(size, dtype=torch.bool), -10)
    logits = torch.cat((positive, similarity.reshape(-1, size)), dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))


@pytest.mark.parametrize('by_image', [False, True])
@pytest.mark.parametrize('count', [1, 2, 5, 17])
@pytest.mark.parametrize('temperature', [0.07, 0.5])
def test_equals_readable_loop(by_image, count, temperature, make_pairs):
    query, key, labels, groups = make_pairs(count)
    groups = groups if by_image else None
    query.requires_grad_()
    loss = PatchNCELoss(temperature)(query, key, labels, groups)
    expected = readable_loop(query, key, groups, temperature)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, query)[0] for x in (loss, expected)))


def test_background_equals_readable_loop(make_pairs):
    query, key, _, groups = make_pairs(6)
    background = torch.randn(4, 6, dtype=torch.double)
    mask = torch.rand(6, 4) > 0.5
    loss = PatchNCELoss()(query, key, None, groups, background=background, background_mask=mask)
    torch.testing.assert_close(loss, readable_loop(query, key, groups, 0.07, background, mask))


@pytest.mark.parametrize('images, size', [(1, 2), (2, 5), (3, 64)])
def test_equals_published_formula(images, size, make_pairs):
    query, key, _, _ = make_pairs(images * size)
    query, key = F.normalize(query, dim=1).requires_grad_(), F.normalize(key, dim=1)
    groups = torch.arange(images).repeat_interleave(size)
    loss = PatchNCELoss()(query, key, groups=groups)
    expected = published_formula(query, key, images, 0.07)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(x, query)[0] for x in (loss, expected))
    # the published one leaves the normalisation to the sampler: compare along the sphere
    theirs = theirs - (theirs * query).sum(dim=1, keepdim=True) * query
    torch.testing.assert_close(ours, theirs.detach())


def test_published_reshape_with_a_wrong_batch_size_is_another_loss(make_pairs):
    query, key = (F.normalize(x, dim=1) for x in make_pairs(8)[:2])
    groups = torch.tensor([0, 1]).repeat_interleave(4)
    ours = PatchNCELoss()(query, key, groups=groups)
    torch.testing.assert_close(ours, published_formula(query, key, 2, 0.07))
    assert abs(ours - published_formula(query, key, 4, 0.07)) > 1e-3


def test_hand_worked():
    # two orthogonal pairs, each partner equal: one key that fits and one that does not, tau = 1
    loss = PatchNCELoss(1.0)(torch.eye(2), torch.eye(2))
    assert loss.item() == pytest.approx(math.log(math.e + 1) - 1)


def test_negatives_of_the_batch_ignore_groups(make_pairs):
    query, key, _, groups = make_pairs(7)
    loss = PatchNCELoss(negatives='batch')(query, key, groups=groups)
    torch.testing.assert_close(loss, readable_loop(query, key, None, 0.07))


def test_detaches_keys_and_background(make_pairs):
    query, key = (x.requires_grad_() for x in make_pairs(4)[:2])
    background = torch.randn(2, 6, dtype=torch.double, requires_grad=True)
    PatchNCELoss()(query, key, background=background).backward()
    assert key.grad is None and background.grad is None and query.grad.abs().sum() > 0
    PatchNCELoss(detach_key=False)(query, key, background=background).backward()
    assert key.grad.abs().sum() > 0 and background.grad.abs().sum() > 0


@pytest.mark.parametrize('detach', [False, True])
@pytest.mark.parametrize('groups', [None, [1, 0, 1, 2, 0, 0, 2, 1, 0], [0, 0, 0, 5, 0, 0, 0, 0, 0]])
@pytest.mark.parametrize('max_elements', [1, 40])
def test_slices_and_groups_give_the_same(detach, groups, max_elements, make_pairs):
    # the second groups are compared in one batched product when they fit, the third as one matrix
    query, key, _, _ = make_pairs(9)
    groups = None if groups is None else torch.tensor(groups)
    query.requires_grad_()
    background = torch.randn(2, 6, dtype=torch.double)
    options = dict(
        groups=groups,
        anchors=torch.arange(9) % 3 > 0,
        background=background,
        background_mask=torch.rand(9, 2) > 0.5,
    )
    results = []
    for size in (max_elements, 2**20):
        loss = PatchNCELoss(detach_key=detach, max_elements=size)(query, key, **options)
        results.append((loss, *torch.autograd.grad(loss, query)))
    for sliced, whole in zip(*results):
        torch.testing.assert_close(sliced, whole)


def test_refuses():
    with pytest.raises(ValueError, match='PatchNCELoss got temperature=-1'):
        PatchNCELoss(-1)
    with pytest.raises(ValueError, match=r"negatives='all', one of \('image', 'batch'\)"):
        PatchNCELoss(negatives='all')
