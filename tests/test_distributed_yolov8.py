"""YOLOv8's losses in two gloo processes against those of each process by itself."""

import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn
from two_processes import run_in_two_processes, serve

from mmdet_contrast.models.dense_heads import YOLOv8Head

pytestmark = pytest.mark.slow

# objects of the two images of rank 0 and of rank 1
COUNTS = {'unequal': ((4, 1), (3, 9)), 'one rank with none': ((5, 2), (0, 0))}
SHAPES = ((8, 8), (4, 4), (2, 2))


class TinyHead(nn.Module):
    """The head, without normalisation over the batch, on features of fixed size."""

    def __init__(self):
        super().__init__()
        self.head = YOLOv8Head(
            num_classes=3, in_channels=[8, 8, 8], head_module=dict(norm_cfg=None)
        )

    def forward(self, feats, instances):
        metas = [dict(img_shape=(64, 64))] * len(instances)
        return sum(self.head.loss_by_feat(*self.head(feats), instances, metas).values())


def build():
    torch.manual_seed(0)
    model = TinyHead()
    model.head.init_weights()
    return model


def make_batch(counts_by_rank, ranks):
    """Features and objects of the images of the given ranks; the same whoever asks."""
    feats, instances = [], []
    for rank in (0, 1):
        generator = torch.Generator().manual_seed(rank)
        for count in counts_by_rank[rank]:
            maps = [torch.randn(1, 8, *shape, generator=generator) for shape in SHAPES]
            corner = torch.rand(count, 2, generator=generator) * 30
            size = 8 + torch.rand(count, 2, generator=generator) * 25
            labels = torch.randint(3, (count,), generator=generator)
            if rank in ranks:
                feats.append(maps)
                boxes = torch.cat((corner, corner + size), dim=1)
                instances.append(InstanceData(bboxes=boxes, labels=labels))
    return [torch.cat(level) for level in zip(*feats)], instances


def gradients_of(model, feats, instances):
    model.zero_grad()
    model(feats, instances).backward()
    return [p.grad.clone() for p in model.parameters()]


def work(rank, folder):
    """What each of the two processes does."""
    results = {}
    for name, counts in COUNTS.items():
        model = nn.parallel.DistributedDataParallel(build())
        results[name] = gradients_of(model, *make_batch(counts, (rank,)))
    return results


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    return run_in_two_processes(__file__, tmp_path_factory.mktemp('ranks'))[0]


@pytest.mark.parametrize('name', list(COUNTS))
def test_ranks_are_weighed_alike(results, name):
    """Each rank's mean counts the same, so the gradients are the mean of both ranks' own."""
    own = [gradients_of(build(), *make_batch(COUNTS[name], (rank,))) for rank in (0, 1)]
    for rank in (0, 1):
        for ours, first, second in zip(results[rank][name], *own):
            # two ranks with two images each: four images, of which each gradient counts two
            torch.testing.assert_close(ours, first + second, atol=1e-5, rtol=1e-3)


if __name__ == '__main__':
    serve(work)
