import math
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
        rows[:, :1, 0] = float('inf')
        labels = torch.randint(-1, CLASSES, (LEVELS if by_level else 1, count))
        queue.enqueue(rows, labels)
        for level, row in ((i, m) for i in range(LEVELS) for m in range(count)):
            of = int(labels.expand(LEVELS, -1)[level, row])
            if of >= 0 and rows[level, row].isfinite().all():
                reference[level, of].append(tuple(rows[level, row].tolist()))
        for label in (0, 1, 2, -1):
            for level, ours in enumerate(negatives(queue, label)):
                others = (reference[level, of] for of in range(CLASSES) if of != label)
                assert ours == {entry for entries in others for entry in entries}


def test_mask_of_labels_of_every_level():
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
    assert not queue.state_dict() and all(
        b.device.type == 'meta' for b in make(4).to('meta').buffers()
    )
    # a model may be channels_last
    queue.to(memory_format=torch.channels_last)
    queue.enqueue(torch.randn(LEVELS, 3, CHANNELS), torch.zeros(1, 3, dtype=torch.long))
    assert len(negatives(queue, 1)[0]) == 3


def similarities(queue, rows, temperature):
    return torch.cosine_similarity(rows[:, :, None], queue.entries[:, None], dim=3) / temperature


@pytest.mark.parametrize('by_level', [False, True])
def test_telling_the_classes_equals_a_loop(by_level):
    queue = make(3)
    # class 2 has no entry, and levels hold different ones
    for _ in range(3):
        rows = torch.randn(LEVELS, 4, CHANNELS)
        queue.enqueue(rows, torch.randint(0, 2, (LEVELS if by_level else 1, 4)))
    rows, labels = torch.randn(LEVELS, 5, CHANNELS), torch.tensor([[0, 1, 2, -1, 0]])
    losses, chance = queue.tell_classes(similarities(queue, rows, 0.5), labels)
    used = [queue.mask(torch.tensor([[c]]))[:, 0] for c in range(CLASSES)]
    for level in range(LEVELS):
        held = []
        for c in range(CLASSES):
            others = [used[o][level] for o in range(CLASSES) if o != c]
            held.append(queue.entries[level][others[0] & others[1]])
        present = [c for c in range(CLASSES) if len(held[c])]
        for i, label in enumerate(labels[0].tolist()):
            if label not in present:
                assert losses[level, i] == chance[level, i] == 0
                continue
            scores = {
                c: sum(
                    math.exp(torch.cosine_similarity(rows[level, i], x, dim=0).item() / 0.5)
                    for x in held[c]
                )
                / len(held[c])
                for c in present
            }
            expected = -math.log(scores[label] / sum(scores.values()))
            assert losses[level, i].item() == pytest.approx(expected, abs=1e-5)
            assert chance[level, i].item() == pytest.approx(math.log(len(present)))


def test_an_empty_bank_and_embeddings_that_are_not_finite_tell_nothing():
    queue, rows = make(2), torch.full((LEVELS, 2, CHANNELS), float('nan'))
    for _ in range(2):
        logits = similarities(queue, rows, 0.1)
        losses, chance = queue.tell_classes(logits, torch.tensor([[0, 1]]))
        assert (losses == 0).all() and (chance == 0).all()
        queue.enqueue(torch.randn(LEVELS, 2, CHANNELS), torch.tensor([[0, 1]]))


def test_classes_are_told_at_any_temperature():
    """Two classes on two axes: exp(1 / 0.005) is infinite in float32."""
    queue = make(2)
    axes = torch.eye(2, CHANNELS).expand(LEVELS, 2, CHANNELS)
    queue.enqueue(axes, torch.tensor([[0, 1]]))
    # the least share in float32 is exp(-87.3)
    for swapped, expected in ((False, 0.0), (True, -math.log(torch.finfo(torch.float32).tiny))):
        labels = torch.tensor([[1, 0] if swapped else [0, 1]])
        losses, chance = queue.tell_classes(similarities(queue, axes, 0.005), labels)
        torch.testing.assert_close(losses, torch.full((LEVELS, 2), expected))
        torch.testing.assert_close(chance, torch.full((LEVELS, 2), math.log(2)))
