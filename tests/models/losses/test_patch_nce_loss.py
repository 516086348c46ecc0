import pytest
import torch
import torch.nn.functional as F
from readable_losses import with_background

from mmdet_contrast.models.losses import PatchNCELoss


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


@pytest.mark.parametrize('images, size', [(1, 2), (2, 5), (3, 64)])
def test_equals_published_formula(images, size, make_pairs):
    query, key = (F.normalize(x.detach(), dim=1) for x in make_pairs(images * size)[:2])
    query.requires_grad_()
    groups = torch.arange(images).repeat_interleave(size)
    loss = PatchNCELoss()(query, key, groups=groups)
    expected = published_formula(query, key, images, 0.07)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(x, query)[0] for x in (loss, expected))
    # the published one leaves the normalisation to the sampler: compare along the sphere
    theirs = theirs - (theirs * query).sum(dim=1, keepdim=True) * query
    torch.testing.assert_close(ours, theirs.detach())


def test_keys_and_background_are_constant(make_pairs):
    query, key = make_pairs(4)[:2]
    background = torch.randn(2, 6, dtype=torch.double, requires_grad=True)
    use = torch.ones(4, 2, dtype=torch.bool)
    with_background(PatchNCELoss(), query, key, None, None, background, use).backward()
    assert query.grad.abs().sum() > 0
    assert key.grad.abs().sum() == background.grad.abs().sum() == 0
