from collections import defaultdict, deque

import pytest
import torch

from mmdet_contrast.models.contrast import FeatureQueue

LEVELS, CLASSES, CHANNELS = 2, 3, 4


def make(size):
    return FeatureQueue(LEVELS, CLASSES, CHANNELS, size)


def negatives(queue, label):
    """The entries that an anchor of the class is compared with, of each level."""
    masks = queue.mask(torch.tensor([[label]]))[:, 0]
    return [{tuple(row.tolist()) for row in x[m]} for x, m in zip(queue.entries, masks)]


@pytest.mark.parametrize('size', [1, 3, 20])
@pytest.mark.parametrize('counts', [(5, 0, 1, 7, 4), (40, 3)])
@pytest.mark.parametrize('by_level', [False, True])
def test_equals_a_deque_for_each_class_and_level(size, counts, by_level):
    queue, reference = make(size), defaultdict(lambda: deque(maxlen=size))
    for count in counts:
        rows = torch.randn(LEVELS, count, CHANNELS)
        rows[torch.rand(LEVELS, count) < 0.1] = float('nan')
        labels = torch.randint(-1, CLASSES, (LEVELS if by_level else 1, count))
        valid = torch.rand(labels.shape) > 0.2
        queue.enqueue(rows, labels, valid)
        for level, row in ((i, m) for i in range(LEVELS) for m in range(count)):
            of = int(labels.expand(LEVELS, -1)[level, row])
            if (
                of >= 0
                and valid.expand(LEVELS, -1)[level, row]
                and rows[level, row].isfinite().all()
            ):
                reference[level, of].append(tuple(rows[level, row].tolist()))
        for label in (0, 1, 2, -1):
            for level, ours in enumerate(negatives(queue, label)):
                others = (reference[level, of] for of in range(CLASSES) if of != label)
                assert ours == {entry for entries in others for entry in entries}


def test_labels_of_every_level_and_no_validity():
    queue = make(4)
    rows = torch.randn(LEVELS, 2, CHANNELS)
    queue.enqueue(rows, torch.tensor([[0, 2]]))
    mask = queue.mask(torch.tensor([[0, 1], [2, -1]]))
    assert mask.shape == (LEVELS, 2, 3 * 4)
    assert mask.sum(dim=2).tolist() == [[1, 2], [1, 2]]
    assert torch.equal(queue.entries[0][mask[0, 0]], rows[0, 1:])


def test_takes_no_gradient_and_half_precision():
    queue = make(4)
    rows = torch.randn(LEVELS, 3, CHANNELS, requires_grad=True)
    queue.enqueue(rows.half(), torch.zeros(1, 3, dtype=torch.long))
    assert queue.entries.dtype == torch.float32 and not queue.entries.requires_grad


def test_is_in_no_checkpoint_and_moves_with_the_model():
    queue = make(4)
    assert not queue.state_dict() and len(list(queue.buffers())) == 2
    # a model may be channels_last
    queue.to(memory_format=torch.channels_last)
    queue.enqueue(torch.randn(LEVELS, 3, CHANNELS), torch.zeros(1, 3, dtype=torch.long))
    assert len(negatives(queue, 1)[0]) == 3
