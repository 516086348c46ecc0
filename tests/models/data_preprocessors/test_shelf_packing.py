import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_contrast.models.data_preprocessors.shelf_packing import (
    Placement,
    ShelfPacker,
    balanced_order,
    pack_by_priority,
)

SIZES = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 70)), max_size=40)


@settings(deadline=None, max_examples=200)
@given(SIZES, st.integers(1, 3), st.integers(0, 9), st.sampled_from([1, 4, 8]))
def test_nothing_overlaps_or_leaves_the_canvas(sizes, canvases, gap, align):
    places = pack_by_priority(sizes, 80, 60, canvases, gap=gap, align=align)
    assert len(places) == len(sizes)
    free = np.ones((canvases, 60 + gap, 80 + gap), dtype=bool)
    for (width, height), place in zip(sizes, places):
        if place is None:
            continue
        canvas, x, y = place
        assert x % align == 0 and y % align == 0
        assert x + width <= 80 and y + height <= 60
        # the gap at the right and below belongs to the rectangle
        area = free[canvas, y : y + height + gap, x : x + width + gap]
        assert area.all()
        area[:] = False


@settings(deadline=None, max_examples=200)
@given(SIZES, st.integers(1, 3))
def test_the_most_wanted_come_first(sizes, canvases):
    places = pack_by_priority(sizes, 80, 60, canvases)
    fitting = [i for i, (w, h) in enumerate(sizes) if w <= 80 and h <= 60]
    # nothing keeps out the first that fits unless one before it is too large for any canvas
    if fitting and fitting[0] == 0:
        assert places[0] is not None
    for (width, height), place in zip(sizes, places):
        assert place is not None or width > 80 or height > 60 or len(fitting) > canvases


def test_a_prefix_is_kept_whole_and_gaps_are_filled_with_later_ones():
    # 60 x 60 and 20 x 60 fill the canvas only without the third; the last one fits beside it
    sizes = [(50, 60), (20, 50), (40, 40), (8, 50)]
    assert pack_by_priority(sizes, 80, 60, 1) == [
        Placement(0, 0, 0),
        Placement(0, 50, 0),
        None,
        Placement(0, 70, 0),
    ]


def test_canvases_are_filled_one_after_the_other():
    places = pack_by_priority([(40, 60)] * 5, 80, 60, 4)
    assert [p.canvas for p in places] == [0, 0, 1, 1, 2]


def test_gap_and_alignment():
    packer = ShelfPacker(width=64, height=32, max_canvases=1, gap=4, align=8)
    assert packer.add(20, 20) == Placement(0, 0, 0)
    assert packer.add(20, 10) == Placement(0, 24, 0)
    assert packer.add(40, 20) is None
    assert packer.add(16, 8) == Placement(0, 48, 0)
    assert packer.add(64, 8) == Placement(0, 0, 24)


def test_nothing_to_pack():
    assert pack_by_priority([], 80, 60, 1) == []
    assert balanced_order([], []) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), max_size=30))
def test_classes_take_turns_the_rarest_first(boxes):
    labels, keys = [b[0] for b in boxes], [b[1] for b in boxes]
    queues = {}
    for i in sorted(range(len(boxes)), key=lambda i: (keys[i], i)):
        queues.setdefault(labels[i], []).append(i)
    turns = sorted(queues, key=lambda label: (len(queues[label]), label))
    found = balanced_order(labels, keys)
    assert sorted(found) == list(range(len(boxes)))
    rounds = max(map(len, queues.values()), default=0)
    seen = iter(found)
    for turn in range(rounds):
        chosen = [label for label in turns if len(queues[label]) > turn]
        members = [next(seen) for _ in chosen]
        assert sorted(labels[i] for i in members) == sorted(chosen)
        if turn == 0:
            assert [len(queues[labels[i]]) for i in members] == sorted(map(len, queues.values()))
        assert sorted(members) == sorted(queues[label][turn] for label in chosen)
