"""ObjectBank, and ContrastiveView filled from it."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_contrast.datasets.transforms import ContrastiveView, ObjectBank


def image(value, dtype=np.uint8, channels=3):
    return np.full((64, 64) if channels is None else (64, 64, channels), value, dtype)


def add(bank, value, labels, key=None, side=16, **kwargs):
    """Objects side by side from the left, whose pixels all have one value."""
    pixels = np.array([[side * i, 0, side * (i + 1), side] for i in range(len(labels))])
    img = image(value, **kwargs)
    bank.add(img, pixels, np.array(labels), value if key is None else key)
    return img


def values(bank, label, like=None, key='other'):
    """Values of all crops that are drawn."""
    like = image(0) if like is None else like
    crops = [bank.draw(label, like, key) for _ in range(200)]
    return sorted({int(crop.flat[0]) for crop in crops if crop is not None})


def test_each_crop_of_the_class_is_drawn_and_no_other():
    bank = ObjectBank()
    for value, label in ((1, 0), (2, 0), (3, 1)):
        add(bank, value, [label])
    assert (values(bank, 0), values(bank, 1), values(bank, 2)) == ([1, 2], [3], [])


def test_an_image_never_gets_its_own_objects():
    bank = ObjectBank()
    add(bank, 1, [0, 0, 5], key='a')
    assert bank.draw(0, image(0), 'a') is None and bank.draw(5, image(0), 'a') is None
    add(bank, 2, [0], key='b')
    assert values(bank, 0, key='a') == [2] and values(bank, 0, key='b') == [1]


def test_an_image_that_comes_again_replaces_its_own_crops():
    bank = ObjectBank()
    add(bank, 1, [0, 1], key='a')
    add(bank, 2, [0], key='b')
    add(bank, 3, [1], key='a')
    assert (values(bank, 0), values(bank, 1)) == ([2], [3])


def test_one_object_of_each_class_of_an_image_chosen_at_random():
    found = set()
    for _ in range(50):
        bank = ObjectBank(min_size=8)
        img = np.repeat(np.arange(64, dtype=np.uint8)[None], 64, axis=0)
        pixels = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 47, 10]])
        bank.add(img, pixels, np.array([4, 4, 4]), 0)
        found.update(int(bank.draw(4, img, 1)[0, 0]) for _ in range(5))
    assert found == {0, 20}  # the third is too small


def test_memory_is_bounded():
    bank = ObjectBank(max_per_class=5, max_side=20)
    for value in range(1, 60):
        add(bank, value, [0])
    assert values(bank, 0) == [55, 56, 57, 58, 59]
    bank.add(image(9), np.array([[0, 0, 60, 30]]), np.array([1]), 0)
    crop = bank.draw(1, image(0), 1)
    assert crop.shape == (10, 20, 3) and (crop == 9).all()


def test_crops_are_copies():
    bank = ObjectBank()
    add(bank, 1, [0])[:] = 200
    assert values(bank, 0) == [1]


@pytest.mark.parametrize(
    'like', [image(0, dtype=np.float32), image(0, channels=1), image(0, channels=None)]
)
def test_crops_of_another_kind_of_image_are_not_used(like):
    bank = ObjectBank()
    add(bank, 1, [0])
    assert bank.draw(0, like, 'x') is None
    add(bank, 2, [0], dtype=like.dtype, channels=like.shape[2] if like.ndim == 3 else None)
    assert values(bank, 0, like) == [2]


SAME = dict(fill='same_class', bank=dict(min_size=8))
A, B, C = [0, 0, 40, 40], [50, 0, 90, 40], [0, 50, 60, 90]


def make_results(boxes, labels, objects, sample_idx=None, dtype=np.uint8, channels=3):
    """Image of zeros with an object of one value, and a centre of half of it, in each box."""
    shape = (100, 120) if channels is None else (100, 120, channels)
    img = np.zeros(shape, dtype)
    for (x1, y1, x2, y2), value in zip(boxes, objects):
        img[y1:y2, x1:x2] = value
        cx, cy, w, h = (x1 + x2) // 2, (y1 + y2) // 2, (x2 - x1) // 4, (y2 - y1) // 4
        img[cy - h : cy + h, cx - w : cx + w] = value // 2
    results = dict(
        img=img,
        gt_bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_bboxes_labels=np.array(labels, dtype=np.int64),
        gt_ignore_flags=np.zeros(len(boxes), dtype=bool),
    )
    return results if sample_idx is None else dict(results, sample_idx=sample_idx)


def shown(out, box):
    """The object that a box shows, by the value of its corner; a zoom shows half of its own."""
    return int(out['img_view'][box[1], box[0]].flat[0])


def test_a_box_shows_another_object_of_its_class_in_its_own_size():
    view = ContrastiveView(**SAME)
    first = view(make_results([A, B], [0, 1], [100, 200], 0))
    assert (shown(first, A), shown(first, B)) == (50, 100)  # nothing to draw yet
    results = make_results([C, B], [1, 0], [20, 40], 1)
    source = results['img'].copy()
    second = view(results)
    assert (shown(second, C), shown(second, B)) == (200, 100)
    # the whole of the object: corners of one value, half of it in the middle
    assert second['img_view'][89, 59, 0] == 200 and second['img_view'][70, 30, 0] == 100
    assert np.array_equal(second['img'], source)
    outside = np.ones((100, 120), bool)
    outside[50:90, 0:60] = outside[0:40, 50:90] = False
    assert np.array_equal(second['img_view'][outside], source[outside])
    assert second['gt_view_valid'].all()


def test_never_the_object_itself_in_later_epochs():
    view = ContrastiveView(**SAME)
    for _ in range(3):
        assert shown(view(make_results([A], [0], [100], 7)), A) == 50


def test_images_without_an_index_are_told_apart():
    view = ContrastiveView(**SAME)
    view(make_results([A], [0], [100]))
    assert shown(view(make_results([A], [0], [200])), A) == 100


def test_marked_ignored_and_small_objects_do_not_enter_the_bank():
    view = ContrastiveView(min_size=10, fill='same_class', bank=dict(min_size=20))
    covered = [0, 0, 40, 42]  # repainted by A
    boxes = [covered, A, B, [0, 60, 15, 75]]
    results = make_results(boxes, [0, 1, 2, 3], [9] * 4)
    results['gt_ignore_flags'][2] = True
    out = view(results)
    assert out['gt_view_valid'].tolist() == [False, True, False, True]
    kept = [view.bank.draw(label, out['img'], 'other') is not None for label in range(4)]
    assert kept == [False, True, False, False]


def test_flipped_view_of_another_object():
    view = ContrastiveView(transforms=[dict(type='RandomFlip', prob=1.0)], **SAME)
    view(make_results([B], [0], [200], 0))
    out = view(make_results([A], [0], [100], 1))
    assert out['gt_bboxes_view'].tensor.tolist() == [[80, 0, 120, 40]]
    assert out['img_view'][0, 80, 0] == 200


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int32', 'float32', 'float64', 'float16'])
@pytest.mark.parametrize('channels', [None, 1, 3])
def test_image_types(dtype, channels):
    view = ContrastiveView(**SAME)
    view(make_results([C], [0], [200], 0, dtype, channels))
    results = make_results([A], [0], [100], 1, dtype, channels)
    source = results['img'].copy()
    out = view(results)
    assert out['img_view'].dtype == source.dtype and out['img_view'].shape == source.shape
    assert out['img_view'].min() >= 0 and out['img_view'].max() <= 200
    assert np.array_equal(out['img'], source)
    assert shown(out, A) == 200


def test_an_image_of_another_kind_falls_back_to_the_zoom():
    view = ContrastiveView(**SAME)
    view(make_results([A], [0], [100], 0))
    assert shown(view(make_results([A], [0], [200], 1, channels=None)), A) == 100


def test_no_box():
    out = ContrastiveView(**SAME)(make_results([], [], []))
    assert out['gt_view_valid'].shape == (0,)
