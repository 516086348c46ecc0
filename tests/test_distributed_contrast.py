"""Queue, locations and weights in two gloo processes against one with the joined batch."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn
from two_processes import run_in_two_processes, serve

from mmdet_contrast.models.contrast import RegionContrast

QUEUE = dict(queue=dict(size=3), num_classes=3)
CASES = {
    'queue': dict(scope='image', **QUEUE),
    'queue, all ranks': dict(scope='all_ranks', **QUEUE),
    'queue by size': dict(scope='all_ranks', assign='scale', **QUEUE),
    'area': dict(scope='image', pair_weights='area'),
    # boxes moved by so little that what is drawn does not matter
    'some views': dict(scope='all_ranks', key_source='view_or_image', box_jitter=1e-9),
    'area, all ranks': dict(scope='all_ranks', assign='scale', pair_weights='area'),
    # more locations than there are: all of them, whatever is drawn
    'patches': dict(
        scope='all_ranks',
        sampler=dict(type='PatchSampler', num_patches=1000),
        criterion=dict(type='NTXentLoss', negatives='all'),
    ),
    'patches, queue': dict(
        scope='image',
        sampler=dict(type='PatchSampler', num_patches=1000, region='all'),
        # all of them, too, as the order in which they come is drawn
        queue=dict(size=2000),
        num_classes=3,
    ),
}
# boxes of the images of rank 0 and of rank 1, of three iterations: unequal, none on one rank or
# the other, one box altogether
STEPS = (((4, 1), (3, 6)), ((5, 2), (0, 0)), ((0,), (1,)))


class TinyModel(nn.Module):
    """A pyramid of two levels and the contrastive branch."""

    def __init__(self, **kwargs):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, stride=8)
        self.down = nn.Conv2d(4, 4, 2, stride=2)
        self.contrast = RegionContrast(
            4,
            strides=(8, 16),
            pool_size=3,
            background='never',
            projector=dict(type='MLPProjector', hidden_channels=8, out_channels=6),
            **kwargs,
        )

    def forward(self, images, samples):
        fine = self.stem(images)
        return sum(self.contrast([fine, self.down(fine)], samples).values())


def build(case):
    torch.manual_seed(0)
    model = TinyModel(**CASES[case])
    model.contrast.init_weights()
    return model.double()


def make_batch(step, ranks, some):
    """Images and samples of the given ranks, originals first; the same whoever asks."""
    originals, views, images, viewed = [], [], [], []
    for rank in ranks:
        generator = torch.Generator().manual_seed(10 * step + rank)
        for index, count in enumerate(STEPS[step][rank]):
            viewed.append(not some or (rank + index) % 2 == 1)
            images.append(torch.randn(2, 3, 96, 96, generator=generator, dtype=torch.double))
            start = torch.rand(count, 2, generator=generator, dtype=torch.double) * 50
            size = 6 + torch.rand(count, 2, generator=generator, dtype=torch.double) * 40
            instances = InstanceData(
                bboxes=torch.cat((start, start + size), dim=1),
                labels=torch.randint(3, (count,), generator=generator),
            )
            for samples, meta in (
                (originals, dict(view=0)),
                (views, dict(view=1, view_of=len(originals))),
            ):
                sample = DetDataSample(metainfo=dict(img_shape=(96, 96), **meta))
                sample.gt_instances = instances.clone()
                samples.append(sample)
    for i, sample in enumerate(views):
        sample.set_metainfo(dict(view_of=i))
    kept = [i for i, is_viewed in enumerate(viewed) if is_viewed]
    shown = [image[0] for image in images] + [images[i][1] for i in kept]
    return torch.stack(shown), originals + [views[i] for i in kept]


def run(model, ranks, case):
    """Gradients of every iteration, and the buffers in the end."""
    gradients = []
    for step in range(len(STEPS)):
        model.zero_grad()
        model(*make_batch(step, ranks, case == 'some views')).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    return gradients, [b.clone() for b in model.buffers()]


def in_order(buffer, case):
    """A buffer, with the entries of each class in an order that does not depend on the draws."""
    if 'patches' not in case or buffer.dim() < 4:
        return buffer
    order = buffer[..., :1].argsort(dim=2).expand_as(buffer)
    return buffer.gather(2, order)


def work(rank, folder):
    """What each of the two processes does."""
    results = {}
    for case in CASES:
        for broadcast in (False, True) if 'queue' in case else (False,):
            model = nn.parallel.DistributedDataParallel(build(case), broadcast_buffers=broadcast)
            results[case, broadcast] = run(model, (rank,), case)
    return results


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    return run_in_two_processes(__file__, tmp_path_factory.mktemp('ranks'))[0]


@pytest.mark.parametrize('broadcast', [False, True])
@pytest.mark.parametrize('case', list(CASES))
def test_two_processes_are_one_with_the_joined_batch(results, case, broadcast):
    if (case, broadcast) not in results[0]:
        pytest.skip('no buffers to broadcast')
    gradients, buffers = run(build(case), (0, 1), case)
    assert all(sum(g.abs().sum() for g in step) > 1e-3 for step in gradients[:2])
    assert not buffers or sum(b.abs().sum() for b in buffers) > 0
    for rank in (0, 1):
        ours, kept = results[rank][case, broadcast]
        for mine, reference in zip(kept, results[0][case, broadcast][1]):
            assert torch.equal(mine, reference)
        for mine, reference in zip(kept, buffers):
            torch.testing.assert_close(in_order(mine, case), in_order(reference, case))
        for step, expected in zip(ours, gradients):
            for mine, reference in zip(step, expected):
                torch.testing.assert_close(mine, reference, atol=1e-7, rtol=1e-6)


if __name__ == '__main__':
    serve(work)
