from collections import defaultdict, deque

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict

from mmdet_contrast.models.contrast import FeatureQueue


def fill(queue, reference, count, seed):
    """Enqueue random rows in both."""
    generator = torch.Generator().manual_seed(seed)
    levels, classes, _, channels = queue.entries.shape
    rows = torch.randn(count, channels, generator=generator)
    level = torch.randint(levels, (count,), generator=generator)
    label = torch.randint(-1, classes, (count,), generator=generator)
    queue.enqueue(rows, level, label)
    for row, at, of in zip(rows, level.tolist(), label.tolist()):
        if of >= 0:
            reference[at, of].append(row)


@pytest.mark.parametrize('size', [1, 3, 20])
@pytest.mark.parametrize('counts', [(5, 0, 1, 7, 4), (40, 3), (0,), (1, 1, 1, 1)])
def test_equals_a_deque_for_each_class(size, counts):
    queue = FeatureQueue(num_levels=2, num_classes=3, channels=4, size=size)
    reference = defaultdict(lambda: deque(maxlen=size))
    for seed, count in enumerate(counts):
        fill(queue, reference, count, seed)
        for level in range(2):
            entries, mask = queue.negatives(level, torch.tensor([0, 1, 2, -1]))
            expected = [(of, row) for of in range(3) for row in reference[level, of]]
            assert len(entries) == len(expected)
            for label, compared in zip((0, 1, 2, -1), mask):
                ours = {tuple(row.tolist()) for row in entries[compared]}
                assert ours == {tuple(row.tolist()) for of, row in expected if of != label}
            for of in range(3):
                # oldest first, starting where the next one will be written
                stored, pointer = queue.entries[level, of], int(queue.pointer[level, of])
                if queue.filled[level, of] == size:
                    stored = stored.roll(-pointer, dims=0)
                stored = stored[: queue.filled[level, of]]
                assert [r.tolist() for r in stored] == [r.tolist() for r in reference[level, of]]


def test_comes_back_from_a_state_dict_and_goes_on():
    def make():
        return FeatureQueue(num_levels=1, num_classes=2, channels=3, size=4)

    whole, first, second = make(), make(), make()
    for seed in (0, 1):
        fill(whole, defaultdict(deque), 5, seed)
    fill(first, defaultdict(deque), 5, 0)
    second.load_state_dict(first.state_dict())
    fill(second, defaultdict(deque), 5, 1)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert set(whole.state_dict()) == {'entries', 'pointer', 'filled'}


@pytest.mark.parametrize('size, channels', [(2, 3), (9, 3), (4, 5)])
@pytest.mark.parametrize('nested', [False, True])
@pytest.mark.parametrize('load', [load_state_dict, lambda m, s: m.load_state_dict(s, strict=True)])
def test_of_another_shape_is_not_loaded_by_halves(size, channels, nested, load, monkeypatch):
    def make(**kwargs):
        queue = FeatureQueue(
            **dict(dict(num_levels=1, num_classes=2, size=4, channels=3), **kwargs)
        )
        return torch.nn.ModuleDict(dict(queue=queue)) if nested else queue

    full, other = make(), make(size=size, channels=channels)
    fill(full['queue'] if nested else full, defaultdict(deque), 20, 0)
    said = []
    monkeypatch.setattr(
        'mmdet_contrast.models.contrast.feature_queue.print_log',
        lambda message, **kwargs: said.append(message),
    )
    load(other, full.state_dict())
    assert said and all('checkpoint (1, 2, 4, 3): they are not loaded' in line for line in said)
    queue = other['queue'] if nested else other
    entries, _ = queue.negatives(0, torch.tensor([0]))
    assert entries.shape == (0, channels)
    rows, zeros = torch.randn(3, channels), torch.zeros(3, dtype=torch.long)
    queue.enqueue(rows, zeros, zeros)
    entries, _ = queue.negatives(0, torch.tensor([1]))
    assert {tuple(row.tolist()) for row in entries} == {
        tuple(row.tolist()) for row in rows[-min(size, 3) :]
    }


def test_counts_without_entries_are_not_loaded():
    full = FeatureQueue(num_levels=1, num_classes=2, size=4, channels=3)
    fill(full, defaultdict(deque), 20, 0)
    counts = {name: value for name, value in full.state_dict().items() if name != 'entries'}
    empty = FeatureQueue(num_levels=1, num_classes=2, size=4, channels=3)
    empty.load_state_dict(counts, strict=False)
    assert not empty.filled.any() and not empty.pointer.any()


def test_leaves_out_what_is_not_finite():
    queue = FeatureQueue(num_levels=1, num_classes=2, channels=2, size=4)
    rows = torch.tensor([[1.0, 2], [float('nan'), 0], [3, float('inf')], [4, 5]])
    zeros = torch.zeros(4, dtype=torch.long)
    queue.enqueue(rows, zeros, zeros)
    entries, _ = queue.negatives(0, torch.tensor([1]))
    assert torch.equal(entries, rows[[0, 3]])


def test_negatives_are_a_copy_without_gradient():
    queue = FeatureQueue(num_levels=1, num_classes=2, channels=3, size=4)
    rows = torch.randn(4, 3, requires_grad=True)
    zeros = torch.zeros(4, dtype=torch.long)
    queue.enqueue(rows, zeros, zeros)
    entries, _ = queue.negatives(0, zeros)
    kept = entries.clone()
    queue.enqueue(rows + 1, zeros, zeros)
    assert not entries.requires_grad and torch.equal(entries, kept)


def test_keeps_its_entries_where_the_model_is_channels_last():
    queue = FeatureQueue(num_levels=2, num_classes=3, channels=4, size=5)
    queue.to(memory_format=torch.channels_last)
    rows = torch.randn(4, 4)
    queue.enqueue(rows, torch.tensor([0, 1, 1, 0]), torch.tensor([0, 2, 2, 1]))
    entries, _ = queue.negatives(1, torch.tensor([0]))
    torch.testing.assert_close(entries, rows[1:3])


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(size=0), 'at least 1 expected'),
        (dict(num_classes=0), 'at least 1 expected'),
        (dict(store='views'), "store='views', one of"),
    ],
)
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FeatureQueue(**dict(dict(num_levels=1, num_classes=2, channels=3), **kwargs))


def test_wrong_rows():
    queue = FeatureQueue(num_levels=1, num_classes=2, channels=3)
    zeros = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match=r'embeddings of shape \(1, 5\), \(K, 3\) expected'):
        queue.enqueue(torch.zeros(1, 5), zeros, zeros)
    with pytest.raises(ValueError, match='class index 2: set contrast.queue.num_classes'):
        queue.enqueue(torch.zeros(1, 3), zeros, zeros + 2)
