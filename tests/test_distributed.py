"""The contrastive loss in two gloo processes against one process with the joined batch."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn
from two_processes import run_in_two_processes, serve

from mmdet_contrast.models.contrast import RegionContrast

CASES = {
    'image': dict(scope='image'),
    'image by size': dict(scope='image', assign='scale'),
    'all ranks': dict(scope='all_ranks'),
    'all ranks by size': dict(scope='all_ranks', assign='scale'),
    'all ranks, flattened features': dict(scope='all_ranks', projector=None),
    'all ranks, detached keys': dict(scope='all_ranks', detach_keys=True),
}
# boxes of the images of rank 0 and of rank 1
COUNTS = {'unequal': ((4, 1), (3, 6)), 'one rank with none': ((5, 2), (0, 0)), 'none': ((0,), (0,))}


class TinyModel(nn.Module):
    """A pyramid of two levels and the contrastive branch."""

    def __init__(self, **kwargs):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, stride=8)
        self.down = nn.Conv2d(4, 4, 2, stride=2)
        projector = kwargs.pop('projector', dict(type='MLPProjector', out_channels=6))
        self.contrast = RegionContrast(
            4, strides=(8, 16), pool_size=3, projector=projector, **kwargs
        )

    def forward(self, images, samples):
        fine = self.stem(images)
        return sum(self.contrast([fine, self.down(fine)], samples).values())


def build(case, **kwargs):
    torch.manual_seed(0)
    return TinyModel(**{'background': 'never', **CASES[case], **kwargs}).double()


def make_batch(counts_by_rank, ranks):
    """Images and samples of the given ranks, originals first; the same whoever asks."""
    originals, views, images = [], [], []
    position = 0
    for rank in (0, 1):
        generator = torch.Generator().manual_seed(rank)
        for count in counts_by_rank[rank]:
            pair = torch.randn(2, 3, 96, 96, generator=generator, dtype=torch.double)
            start = torch.rand(count, 2, generator=generator, dtype=torch.double) * 50
            size = 6 + torch.rand(count, 2, generator=generator, dtype=torch.double) * 40
            boxes = torch.cat((start, start + size), dim=1)
            labels = torch.randint(3, (count,), generator=generator)
            if rank not in ranks:
                continue
            for samples, meta in (
                (originals, dict(view=0)),
                (views, dict(view=1, view_of=position)),
            ):
                sample = DetDataSample(metainfo=dict(img_shape=(96, 96), **meta))
                sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
                samples.append(sample)
            images.append(pair)
            position += 1
    return torch.cat([torch.stack([p[v] for p in images]) for v in (0, 1)]), originals + views


def gradients_of(model, images, samples):
    model.zero_grad()
    model(images, samples).backward()
    return [p.grad.clone() for p in model.parameters()]


def work(rank, folder):
    """What each of the two processes does."""
    results = {}
    for case in CASES:
        for name, counts in COUNTS.items():
            model = nn.parallel.DistributedDataParallel(build(case))
            results[case, name] = gradients_of(model, *make_batch(counts, (rank,)))
    # with background regions, drawn by each process, on a rank without objects too
    model = nn.parallel.DistributedDataParallel(
        build('all ranks', background='always', num_background=2 + rank)
    )
    batch = make_batch(COUNTS['one rank with none'], (rank,))
    results['background'] = gradients_of(model, *batch)
    return results


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    return run_in_two_processes(__file__, tmp_path_factory.mktemp('ranks'))[0]


@pytest.mark.parametrize('name', list(COUNTS))
@pytest.mark.parametrize('case', list(CASES))
def test_gradients_are_those_of_one_process_with_the_joined_batch(results, case, name):
    expected = gradients_of(build(case), *make_batch(COUNTS[name], (0, 1)))
    if name != 'none':
        assert sum(g.abs().sum() for g in expected) > 1e-3
    for rank in (0, 1):
        for ours, theirs in zip(results[rank][case, name], expected):
            torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-6)


def test_background_regions_of_unequal_number(results):
    for first, second in zip(results[0]['background'], results[1]['background']):
        assert torch.isfinite(first).all() and first.abs().sum() > 0
        torch.testing.assert_close(first, second)


if __name__ == '__main__':
    serve(work)
