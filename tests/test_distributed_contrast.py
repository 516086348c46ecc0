"""Two gloo processes against one with the joined batch."""

import pytest
import torch
import torch.distributed as dist
from contrast_batches import build as build_branch
from contrast_batches import make_samples
from torch import nn
from two_processes import run_in_two_processes, serve

QUEUE = dict(queue=dict(size=3))
STILL = dict(type='ViewBoxes', background=0)
PATCHES = dict(type='PatchSampler', num_patches=1000)
# what is drawn at random is drawn otherwise by two processes: nothing, as little as does not
# matter, or all there is
CASES = {
    'all ranks': dict(scope='all_ranks', sampler=STILL),
    'objects': dict(scope='all_ranks', sampler=STILL, average='objects'),
    'image': dict(scope='image', sampler=STILL),
    'queue': dict(scope='image', sampler=STILL, **QUEUE),
    'supcon': dict(scope='all_ranks', sampler=STILL, criterion=dict(type='SupConLoss')),
    'own keys': dict(
        scope='all_ranks', sampler=dict(type='JitteredBoxes', jitter=1e-9, background=0)
    ),
    'patches': dict(
        # on the coarse level alone: the fine one has four times as many
        strides=(16,),
        scope='all_ranks',
        sampler=PATCHES,
        criterion=dict(type='NTXentLoss', negatives='all'),
    ),
    'patches, queue': dict(
        # all of them, too, as the order in which they come is drawn
        strides=(16,),
        scope='image',
        sampler=dict(PATCHES, region='all'),
        queue=dict(size=3000),
        share_projector=False,
    ),
}
# two processes draw other background and compare within themselves: they must only agree
AGREE = {
    'batch': dict(scope='batch', **QUEUE),
    'background, all ranks': dict(scope='all_ranks'),
}
# of which the bytes are counted, in float32: what docs/scale.md says
COUNTED = {
    'all ranks': dict(scope='all_ranks', **QUEUE),
    'queue': dict(scope='batch', **QUEUE),
    'neither': dict(scope='batch'),
}
LEVELS, CLASSES, LENGTH, BACKGROUND = 2, 3, 5, 4
# boxes of the images of rank 0 and of rank 1, of four iterations: unequal, none on one rank or
# the other, one box altogether, none at all
STEPS = (((4, 1), (3, 6)), ((5, 2), (0, 0)), ((0,), (1,)), ((0,), (0,)))


class TinyModel(nn.Module):
    """A pyramid of two levels and the contrastive branch."""

    def __init__(self, strides=(8, 16), **kwargs):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 8, stride=8)
        self.down = nn.Conv2d(4, 4, 2, stride=2)
        self.contrast = build_branch(strides=strides, **kwargs)
        # at first nothing would reach the pyramid
        self.contrast.trust.fill_(0.5)
        self.double()

    def forward(self, images, samples):
        fine = self.stem(images)
        feats = [fine, self.down(fine)]
        return self.contrast(feats[-len(self.contrast.strides) :], samples)


def make_batch(step, ranks):
    """Pictures and samples of the given ranks; the same whoever asks."""
    originals, pictures, images, views = [], [], [], []
    total = sum(len(STEPS[step][rank]) for rank in ranks)
    for i, rank in enumerate(ranks):
        seeds = [100 * step + 10 * rank + k for k in range(len(STEPS[step][rank]))]
        *own, picture = make_samples(STEPS[step][rank], seed=seeds)
        # a picture for each rank, so that none joins what two processes have apart
        for sample in own:
            sample.set_metainfo(dict(view_place=(total + i, *sample.view_place[1:])))
        originals += own
        pictures.append(picture)
        images += [noise(seed) for seed in seeds]
        views.append(noise(1000 + seeds[0]))
    return torch.stack(images + views), originals + pictures


def noise(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 128, 192, generator=generator, dtype=torch.double)


def run(model, ranks):
    """Losses and gradients of every iteration, and the buffers in the end."""
    losses, gradients = [], []
    for step in range(len(STEPS)):
        model.zero_grad()
        values = model(*make_batch(step, ranks))
        sum(value for name, value in values.items() if 'loss' in name).backward()
        losses.append({name: value.detach() for name, value in values.items()})
        gradients.append([p.grad.clone() for p in model.parameters()])
    return losses, gradients, {name: b.clone() for name, b in model.named_buffers()}


def sent(case, step):
    """Bytes that a process gives to gathers, and to sums, in an iteration."""
    pairs = max(1, *(sum(counts) for counts in STEPS[step]))
    others = BACKGROUND * max(len(counts) for counts in STEPS[step])
    row = 4 * LEVELS * LENGTH
    gathered = {
        'all ranks': row * (2 * pairs + others) + 8 * (2 * pairs + others + 4),
        'queue': row * pairs + 8 * (pairs + 2),
        'neither': 0,
    }[case]
    summed = 4 * (CLASSES + 1) + 4 * LEVELS * 3
    if case == 'all ranks':
        summed += 2 * row * (2 * pairs + others)
    return gathered, summed


def count_bytes(rank, case):
    """What :func:`sent` says, counted."""
    counts = []

    def counting(collective, kind):
        def call(*args, **kwargs):
            tensor = args[1 - kind]  # of all_gather the second
            counts[-1][kind] += tensor.numel() * tensor.element_size()
            return collective(*args, **kwargs)

        return call

    stock = dist.all_gather, dist.all_reduce
    dist.all_gather, dist.all_reduce = (counting(call, i) for i, call in enumerate(stock))
    try:
        model = TinyModel(**COUNTED[case]).float()
        for step in range(len(STEPS)):
            counts.append([0, 0])
            images, samples = make_batch(step, (rank,))
            values = model(images.float(), samples)
            sum(value for name, value in values.items() if 'loss' in name).backward()
    finally:
        dist.all_gather, dist.all_reduce = stock
    return [tuple(count) for count in counts]


def in_order(buffer, case):
    """A buffer, with the entries of each class in an order that does not depend on the draws."""
    if 'patches' not in case or buffer.dim() < 3:
        return buffer
    return buffer.gather(1, buffer[..., :1].argsort(dim=1).expand_as(buffer))


def work(rank, folder):
    """What each of the two processes does."""
    results = {}
    for case, kwargs in {**CASES, **AGREE}.items():
        model = nn.parallel.DistributedDataParallel(TinyModel(**kwargs), broadcast_buffers=False)
        losses, gradients, buffers = run(model, (rank,))
        results[case] = losses, gradients, {k[len('module.') :]: v for k, v in buffers.items()}
    results['bytes'] = {case: count_bytes(rank, case) for case in COUNTED}
    return results


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    return run_in_two_processes(__file__, tmp_path_factory.mktemp('ranks'), timeout=900)[0]


@pytest.mark.parametrize('case', CASES)
def test_two_processes_are_one_with_the_joined_batch(results, case):
    losses, gradients, buffers = run(TinyModel(**CASES[case]), (0, 1))
    assert all(sum(g.abs().sum() for g in step) > 1e-3 for step in gradients[:2])
    for step, expected in enumerate(losses):
        # each rank has a share of the sum, over the mean of their numbers of terms
        mean = {
            k: (results[0][case][0][step][k] + results[1][case][0][step][k]) / 2 for k in expected
        }
        torch.testing.assert_close(mean, expected, atol=1e-7, rtol=1e-6)
    for rank in (0, 1):
        torch.testing.assert_close(results[rank][case][1], gradients, atol=1e-7, rtol=1e-6)
        for name, expected in buffers.items():
            kept = results[rank][case][2][name]
            torch.testing.assert_close(
                in_order(kept, case), in_order(expected, case), atol=1e-7, rtol=1e-6
            )


@pytest.mark.parametrize('case', [*CASES, *AGREE])
def test_the_ranks_agree(results, case):
    (_, first, buffers), (_, second, others) = (results[rank][case] for rank in (0, 1))
    assert all(torch.equal(a, b) for x, y in zip(first, second) for a, b in zip(x, y))
    for name, buffer in buffers.items():
        assert torch.equal(buffer, others[name]), name
    assert (buffers['contrast.trust'] != 0.5).all()


@pytest.mark.parametrize('case', COUNTED)
def test_bytes_between_the_ranks(results, case):
    expected = [sent(case, step) for step in range(len(STEPS))]
    assert results[0]['bytes'][case] == results[1]['bytes'][case] == expected


if __name__ == '__main__':
    serve(work)
