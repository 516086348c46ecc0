"""ContrastiveView filled with other objects of the class, and its soft edges."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import pseudo_collate
from mmengine.runner import set_random_seed
from torch.utils.data import DataLoader, Dataset

from mmdet_contrast.datasets.transforms import ContrastiveView, PackContrastiveInputs

SAME = dict(fill='same_class', bank=dict(min_size=8))


def make_results(boxes, labels, values, sample_idx=None, dtype=np.uint8, channels=3):
    """Image of zeros with an object of one value, and a centre of half of it, in each box."""
    shape = (100, 120) if channels is None else (100, 120, channels)
    img = np.zeros(shape, dtype)
    for (x1, y1, x2, y2), value in zip(boxes, values):
        img[y1:y2, x1:x2] = value
        cx, cy, w, h = (x1 + x2) // 2, (y1 + y2) // 2, (x2 - x1) // 4, (y2 - y1) // 4
        img[cy - h : cy + h, cx - w : cx + w] = value // 2
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    results = dict(
        img=img,
        img_shape=img.shape[:2],
        gt_bboxes=HorizontalBoxes(tensor),
        gt_bboxes_labels=np.array(labels, dtype=np.int64),
        gt_ignore_flags=np.zeros(len(boxes), dtype=bool),
    )
    if sample_idx is not None:
        results['sample_idx'] = sample_idx
    return results


def shown(out, box):
    """The object a box shows, by the value of its corner."""
    return int(out['img_view'][box[1], box[0]].flat[0])


A, B, C = [0, 0, 40, 40], [50, 0, 90, 40], [0, 50, 60, 90]


def test_a_box_shows_another_object_of_its_class_in_its_own_size():
    view = ContrastiveView(**SAME)
    first = view(make_results([A, B], [0, 1], [100, 200], 0))
    assert first['gt_view_same_class'].tolist() == [False, False]  # nothing to draw yet
    assert (shown(first, A), shown(first, B)) == (50, 100)  # zoomed: the centre
    results = make_results([C, B], [1, 0], [20, 40], 1)
    source = results['img'].copy()
    second = view(results)
    assert second['gt_view_same_class'].tolist() == [True, True]
    assert (shown(second, C), shown(second, B)) == (200, 100)
    # the whole of the object: corners of one value, half of it in the middle
    y, x = 50 + 20, 30
    assert second['img_view'][89, 59, 0] == 200 and second['img_view'][y, x, 0] == 100
    assert np.array_equal(second['img'], source)
    outside = np.ones((100, 120), bool)
    outside[50:90, 0:60] = outside[0:40, 50:90] = False
    assert np.array_equal(second['img_view'][outside], source[outside])
    assert second['gt_view_valid'].all()


def test_objects_of_one_image_stand_for_each_other():
    out = ContrastiveView(**SAME)(make_results([A, B], [0, 0], [100, 200], 0))
    assert (shown(out, A), shown(out, B)) == (200, 100)


def test_never_the_object_itself_in_later_epochs():
    view = ContrastiveView(**SAME)
    for _ in range(3):
        out = view(make_results([A], [0], [100], 7))
        assert out['gt_view_same_class'].tolist() == [False]
        assert shown(out, A) == 50


def test_without_an_index_images_are_told_apart():
    view = ContrastiveView(**SAME)
    view(make_results([A], [0], [100]))
    assert shown(view(make_results([A], [0], [200])), A) == 100


def test_marked_ignored_and_small_objects_do_not_enter_the_bank():
    view = ContrastiveView(min_size=10, fill='same_class', bank=dict(min_size=20))
    covered = [0, 0, 40, 42]  # repainted by A
    results = make_results([covered, A, [50, 0, 90, 40], [0, 60, 15, 75]], [0, 1, 2, 3], [9] * 4)
    results['gt_ignore_flags'][2] = True
    out = view(results)
    assert out['gt_view_valid'].tolist() == [False, True, False, True]
    assert [view.bank.count(label) for label in range(4)] == [0, 1, 0, 0]


def test_mixed_fill():
    boxes = [[10 * x, 10 * y, 10 * x + 10, 10 * y + 10] for x in range(12) for y in range(10)]
    labels, values = [0] * len(boxes), [100] * len(boxes)
    shares = {}
    for prob in (0.0, 0.3, 1.0):
        set_random_seed(0)
        view = ContrastiveView(
            zoom_range=(3, 3), fill='mixed', same_class_prob=prob, bank=dict(min_size=8)
        )
        out = view(make_results(boxes, labels, values, 0))
        shares[prob] = out['gt_view_same_class'].mean()
        filled = np.array([shown(out, box) for box in boxes]) == 100
        assert np.array_equal(filled, out['gt_view_same_class'])
    assert shares[0.0] == 0 and shares[1.0] == 1 and 0.15 < shares[0.3] < 0.45


def test_zooms_and_transforms_do_not_depend_on_what_the_bank_holds():
    jitter = [dict(type='PhotoMetricDistortion'), dict(type='RandomFlip', prob=0.5)]
    outs = []
    for seen in (0, 5):
        view = ContrastiveView(transforms=jitter, **SAME)
        for index in range(seen):
            view(make_results([A, B], [1, 1], [100, 200], index + 1))
        set_random_seed(0)
        outs.append(view(make_results([A, B], [0, 2], [100, 200], 0)))
    assert np.array_equal(outs[0]['img_view'], outs[1]['img_view'])


def test_flipped_view_of_other_objects():
    view = ContrastiveView(transforms=[dict(type='RandomFlip', prob=1.0)], **SAME)
    out = view(make_results([A, B], [0, 0], [100, 200], 0))
    assert out['gt_bboxes_view'].tensor.tolist() == [[80, 0, 120, 40], [30, 0, 70, 40]]
    assert out['img_view'][0, 80, 0] == 200 and out['img_view'][0, 30, 0] == 100


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int32', 'float32', 'float64', 'float16'])
@pytest.mark.parametrize('channels', [None, 1, 3])
@pytest.mark.parametrize('soft_edges', [0, 0.2])
def test_image_types(dtype, channels, soft_edges):
    view = ContrastiveView(soft_edges=soft_edges, **SAME)
    results = make_results([A, C], [0, 0], [100, 200], 0, dtype, channels)
    source = results['img'].copy()
    out = view(results)
    assert out['img_view'].dtype == source.dtype and out['img_view'].shape == source.shape
    assert out['img_view'].min() >= 0 and out['img_view'].max() <= 200
    assert np.array_equal(out['img'], source)
    assert out['gt_view_same_class'].all()
    assert out['img_view'][9, 9].flat[0] == 200  # A shows the object of C


def test_an_image_of_another_kind_falls_back_to_the_zoom():
    view = ContrastiveView(**SAME)
    view(make_results([A], [0], [100], 0))
    out = view(make_results([A], [0], [200], 1, channels=None))
    assert out['gt_view_same_class'].tolist() == [False] and shown(out, A) == 100


def test_soft_edges_stay_inside_the_box_and_only_change_its_border():
    results = make_results([A, B], [0, 1], [100, 200], 0)
    results['img'][:] = np.random.default_rng(0).integers(0, 256, results['img'].shape)
    hard, soft = (
        ContrastiveView(zoom_range=(2, 2), soft_edges=width)(dict(results))['img_view']
        for width in (0, 0.1)
    )
    differ = (hard != soft).any(axis=2)
    border = np.zeros_like(differ)
    for x1, y1, x2, y2 in (A, B):
        border[y1:y2, x1:x2] = True
        border[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4] = False
    assert not differ[~border].any() and differ[border].mean() > 0.9
    # on the border itself an eighth of the zoom and seven eighths of the image
    expected = results['img'][0, :40] * 0.875 + hard[0, :40] * 0.125
    np.testing.assert_allclose(soft[0, :40], expected, atol=0.51)


def test_keeping_the_aspect_ratio():
    tall = [0, 0, 20, 80]
    for fit, corner in (('stretch', 100), ('crop', 50)):
        view = ContrastiveView(fit=fit, **SAME)
        view(make_results([[0, 0, 40, 40]], [0], [100], 0))
        out = view(make_results([tall], [0], [8], 1))
        # the central 10 columns of the 40 x 40 object are half-valued in their middle rows
        assert out['img_view'][40, 0, 0] == corner, fit


class Images(Dataset):
    """Twelve images of one class, through a view and its packing."""

    def __init__(self):
        self.view, self.pack = ContrastiveView(**SAME), PackContrastiveInputs(meta_keys=())

    def __len__(self):
        return 12

    def __getitem__(self, index):
        results = make_results([A, B], [0, 1], [100 + 2 * index, 200 + 2 * index], index)
        return self.pack(self.view(results))['inputs']


def run(workers, epochs=2):
    set_random_seed(0)
    loader = DataLoader(
        Images(),
        batch_size=2,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=pseudo_collate,
        generator=torch.Generator().manual_seed(0),
    )
    found = []
    for epoch in range(epochs):
        ContrastiveView.set_epoch(epoch)
        found.append(torch.stack([image for batch in loader for image in batch]))
    ContrastiveView.set_epoch(0)
    return found


def test_persistent_workers_keep_their_banks_and_repeat_a_run():
    first, again = run(2), run(2)
    for one, two in zip(first, again):
        assert torch.equal(one, two)
    # corner of A in the view: a zoom shows half the value of its own object
    corners = [epoch[:, 1, 0, 0, 0].tolist() for epoch in first]
    own = [100 + 2 * index for index in range(12)]
    halves = [value // 2 for value in own]
    # each worker begins with an empty bank, and has one from its second image on
    assert [corner == half for corner, half in zip(corners[0], halves)].count(True) == 2
    assert all(value != corner for value, corner in zip(own, corners[1]))
    assert set(corners[1]) <= set(own)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(fill='other'), "fill='other' given, one of zoom, same_class, mixed"),
        (dict(fill='mixed', same_class_prob=2), 'same_class_prob=2'),
        (dict(bank=dict(min_size=8)), "bank is given, but fill='zoom'"),
        (dict(fill='same_class', bank=dict(max_per_class=0)), 'max_per_class=0'),
        (dict(fit='squeeze'), "fit='squeeze' given, one of stretch, crop"),
        (dict(soft_edges=0.7), 'soft_edges=0.7'),
        (dict(soft_edges=-1), 'soft_edges=-1'),
    ],
)
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveView(**kwargs)


def test_missing_labels():
    results = make_results([A], [0], [100])
    del results['gt_bboxes_labels']
    with pytest.raises(KeyError, match="no 'gt_bboxes_labels'.*after LoadAnnotations"):
        ContrastiveView(**SAME)(results)
    assert 'gt_view_same_class' not in ContrastiveView()(results)


def test_no_box():
    out = ContrastiveView(**SAME)(make_results([], [], []))
    assert out['gt_view_same_class'].shape == (0,)
    assert "fill='same_class'" in repr(ContrastiveView(**SAME))
