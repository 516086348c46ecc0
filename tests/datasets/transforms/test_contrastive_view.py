import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import init_default_scope

from mmdet_contrast.datasets.transforms import ContrastiveView, ObjectBank
from mmdet_contrast.datasets.transforms.contrastive_view import covered_share, resize_patch


def make_results(boxes, size=(100, 120), dtype=np.uint8, channels=3, seed=0):
    shape = size if channels is None else (*size, channels)
    img = np.random.RandomState(seed).randint(0, 255, shape).astype(dtype)
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return dict(
        img=img,
        img_shape=size,
        gt_bboxes=HorizontalBoxes(torch.from_numpy(boxes)),
        gt_bboxes_labels=np.zeros(len(boxes), dtype=np.int64),
        gt_ignore_flags=np.zeros(len(boxes), dtype=bool),
    )


def test_only_the_boxes_change_and_the_source_stays():
    results = make_results([[10, 20, 50, 60], [70, 5, 110, 35]])
    img, boxes = results['img'].copy(), results['gt_bboxes'].tensor.clone()
    out = ContrastiveView()(results)
    assert np.array_equal(out['img'], img)
    assert torch.equal(out['gt_bboxes'].tensor, boxes)
    inside = np.zeros(img.shape[:2], bool)
    inside[20:60, 10:50] = inside[5:35, 70:110] = True
    changed = (out['img_view'] != img).any(axis=2)
    assert not changed[~inside].any()
    assert changed[inside].mean() > 0.9
    assert out['gt_view_valid'].tolist() == [True, True]
    assert not np.shares_memory(out['img_view'], img)


def test_equals_enlarging_the_whole_image():
    """The log's way, enlarge everything and crop: same region of the picture."""
    height, width = 100, 120
    y, x = np.mgrid[:height, :width].astype(np.float32)
    results = make_results([[20, 30, 60, 70]])
    results['img'] = np.stack((x, y, x + y), axis=2)
    view = ContrastiveView(zoom_range=(2, 2))(results)['img_view'][30:70, 20:60]
    # enlarged by z around the centre, pixel (i, j) of the box shows c + (i - c) / z
    column = 40 + (np.arange(20, 60) + 0.5 - 40) / 2 - 0.5
    row = 50 + (np.arange(30, 70) + 0.5 - 50) / 2 - 0.5
    # cv2 replicates the crop's edge, the enlarged picture goes on: half a pixel there
    np.testing.assert_allclose(view[..., 0], np.broadcast_to(column, (40, 40)), atol=0.26)
    np.testing.assert_allclose(view[..., 1], np.broadcast_to(row[:, None], (40, 40)), atol=0.26)


def test_small_box_in_front_survives_and_large_one_is_marked():
    # listed first, the small box would be painted over by the large one
    results = make_results([[40, 40, 60, 60], [20, 20, 80, 80]])
    alone = ContrastiveView(zoom_range=(2, 2))(make_results([[40, 40, 60, 60]]))
    out = ContrastiveView(zoom_range=(2, 2))(results)
    assert np.array_equal(out['img_view'][40:60, 40:60], alone['img_view'][40:60, 40:60])
    assert out['gt_view_valid'].tolist() == [True, True]  # 400 / 3600 overwritten
    results = make_results([[20, 20, 60, 62], [20, 20, 60, 60]])
    assert ContrastiveView()(results)['gt_view_valid'].tolist() == [False, True]


@pytest.mark.parametrize('limit, valid', [(0.24, False), (0.26, True)])
def test_stated_share(limit, valid):
    results = make_results([[0, 0, 40, 40], [20, 0, 60, 20], [20, 0, 60, 20]])
    out = ContrastiveView(max_overwritten=limit)(results)
    assert bool(out['gt_view_valid'][0]) is valid  # the union of both covers 400 / 1600
    assert not out['gt_view_valid'][1]  # repainted by its duplicate
    assert out['gt_view_valid'][2]


@pytest.mark.parametrize(
    'box, valid',
    [
        ([-20, -10, 30, 40], True),  # clipped to 30 x 40
        ([100, 50, 140, 90], True),
        ([-50, -50, -10, -10], False),  # outside
        ([200, 200, 300, 300], False),
        ([30, 30, 30, 50], False),  # no area
        ([30, 30, 37, 60], False),  # under the stated size
        ([30, 30, 38, 60], True),
        ([50, 50, 40, 40], False),  # upside down
        ([np.nan, 0, 30, 30], False),  # nobody knows where
        ([10, 10, np.inf, 60], False),
        ([0, 0, 120, 100], True),  # the whole image
    ],
)
def test_odd_boxes(box, valid):
    results = make_results([box])
    img = results['img'].copy()
    out = ContrastiveView()(results)
    assert bool(out['gt_view_valid'][0]) is valid
    assert np.array_equal(out['img'], img)
    if not valid:
        assert np.array_equal(out['img_view'], img)


def test_ignored_boxes_take_no_part():
    results = make_results([[10, 20, 50, 60], [70, 5, 110, 35]])
    results['gt_ignore_flags'][0] = True
    out = ContrastiveView()(results)
    assert out['gt_view_valid'].tolist() == [False, True]
    assert np.array_equal(out['img_view'][20:60, 10:50], results['img'][20:60, 10:50])


def test_a_box_that_transforms_push_out_of_the_view_takes_no_part():
    results = make_results([[2, 20, 30, 60], [5, 70, 25, 90], [60, 20, 118, 60], [108, 5, 116, 13]])
    shift = dict(
        type='TranslateX', prob=1.0, level=10, max_mag=0.25, reversal_prob=0.0, img_border_value=0
    )
    out = ContrastiveView(transforms=[shift])(results)
    moved = out['gt_bboxes_view'].tensor
    left = moved[:, 2] - moved[:, 0]
    assert left.tolist() == [6, 1, 58, 8]
    assert out['gt_view_valid'].tolist() == [False, False, True, True]


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('channels', [None, 1, 3])
def test_image_types(dtype, channels):
    results = make_results([[10, 20, 50, 60]], dtype=dtype, channels=channels)
    view = ContrastiveView()(results)['img_view']
    img = results['img']
    assert view.dtype == img.dtype and view.shape == img.shape
    assert view.min() >= img.min() and view.max() <= img.max()
    assert (view[20:60, 10:50] != img[20:60, 10:50]).mean() > 0.9


def test_plain_arrays_as_boxes():
    results = make_results([[10, 20, 50, 60]])
    results['gt_bboxes'] = results['gt_bboxes'].numpy()
    out = ContrastiveView(transforms=[dict(type='RandomFlip', prob=1.0)])(results)
    assert out['gt_bboxes_view'].tolist() == [[70, 20, 110, 60]]


def test_flip_moves_the_boxes_of_the_view_only():
    results = make_results([[10, 20, 50, 60], [70, 5, 110, 35]])
    plain = ContrastiveView(zoom_range=(2, 2))(dict(results))['img_view']
    out = ContrastiveView(zoom_range=(2, 2), transforms=[dict(type='RandomFlip', prob=1.0)])(
        dict(results)
    )
    assert np.array_equal(out['img_view'], plain[:, ::-1])
    assert out['gt_bboxes'].tensor.tolist() == [[10, 20, 50, 60], [70, 5, 110, 35]]
    assert out['gt_bboxes_view'].tensor.tolist() == [[70, 20, 110, 60], [10, 5, 50, 35]]


def test_only_what_moves_is_noted():
    colours = ContrastiveView(transforms=[dict(type='PhotoMetricDistortion')])
    flip = ContrastiveView(transforms=[dict(type='RandomFlip', prob=1.0)])
    never = ContrastiveView(transforms=[dict(type='RandomFlip', prob=0.0)])
    # the second one is its own mirror image, and the third one has nothing
    for boxes in ([[10, 20, 50, 60]], [[0, 20, 120, 60]], np.zeros((0, 4))):
        assert 'gt_bboxes_view' not in colours(make_results(boxes))
        assert 'gt_bboxes_view' not in never(make_results(boxes))
        assert 'gt_bboxes_view' in flip(make_results(boxes))


def test_transforms_that_drop_boxes_are_refused():
    drop = dict(type='FilterAnnotations', min_gt_bbox_wh=(35, 35))
    results = make_results([[10, 20, 50, 60], [70, 5, 80, 15]])
    with pytest.raises(ValueError, match='dropped or reordered boxes'):
        ContrastiveView(transforms=[drop])(results)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(-20, 140)] * 4).map(
            lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
        ),
        max_size=6,
    )
)
def test_nothing_outside_of_the_boxes_ever_changes(boxes):
    results = make_results(boxes)
    out = ContrastiveView()(results)
    outside = np.ones(results['img'].shape[:2], bool)
    for x1, y1, x2, y2 in boxes:
        outside[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = False
    assert np.array_equal(out['img_view'][outside], results['img'][outside])
    assert len(out['gt_view_valid']) == len(boxes)


def test_a_zoom_below_one_is_refused():
    with pytest.raises(ValueError, match=r'zoom_range=\(0.5, 2\), expected factors of at least 1'):
        ContrastiveView(zoom_range=(0.5, 2))


@pytest.fixture
def shapes(tiny_shapes):
    init_default_scope('mmdet')

    def config(*steps):
        return dict(
            type='CocoDataset',
            data_root=str(tiny_shapes),
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=('striped_disc', 'checkered_square', 'dotted_triangle')),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True),
                *steps,
            ],
        )

    return config


VIEW = [dict(type='ContrastiveView'), dict(type='PackContrastiveInputs')]


def check_packed(packed):
    """The view differs in its objects, and in nothing else; boxes that fit are contrasted."""
    image, view = packed['inputs'].int()
    instances = packed['data_samples'].gt_instances
    inside = torch.zeros(image.shape[1:], dtype=torch.bool)
    for box in instances.bboxes.tensor:
        x1, y1, x2, y2 = box.tolist()
        inside[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))] = True
    changed = (image != view).any(dim=0)
    assert changed.any() and not (changed & ~inside).any()
    assert len(instances.view_valid) == len(instances.bboxes) and instances.view_valid.any()


def test_mosaic_of_several_images(shapes):
    mosaic = [
        dict(type='Mosaic', img_scale=(64, 64), pad_val=114.0),
        dict(type='RandomAffine', scaling_ratio_range=(0.8, 1.2), border=(-32, -32)),
        *VIEW,
    ]
    data = DATASETS.build(
        dict(type='MultiImageMixDataset', dataset=shapes(), pipeline=mosaic, max_refetch=15)
    )
    for i in range(4):
        check_packed(data[i])


# --- ObjectBank, and the view filled from it


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
    bank = ObjectBank(max_per_class=5)
    for value in range(1, 60):
        add(bank, value, [0])
    assert values(bank, 0) == [55, 56, 57, 58, 59]
    bank.add(np.full((200, 300, 3), 9, np.uint8), np.array([[0, 0, 256, 128]]), np.array([1]), 0)
    crop = bank.draw(1, image(0), 1)
    assert crop.shape == (64, 128, 3) and (crop == 9).all()


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


def make_objects(boxes, labels, objects, sample_idx=None, dtype=np.uint8, channels=3):
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
    first = view(make_objects([A, B], [0, 1], [100, 200], 0))
    assert (shown(first, A), shown(first, B)) == (50, 100)  # nothing to draw yet
    results = make_objects([C, B], [1, 0], [20, 40], 1)
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
        assert shown(view(make_objects([A], [0], [100], 7)), A) == 50


def test_images_without_an_index_are_told_apart():
    view = ContrastiveView(**SAME)
    view(make_objects([A], [0], [100]))
    assert shown(view(make_objects([A], [0], [200])), A) == 100


def test_marked_ignored_and_small_objects_do_not_enter_the_bank():
    view = ContrastiveView(min_size=10, fill='same_class', bank=dict(min_size=20))
    covered = [0, 0, 40, 42]  # repainted by A
    boxes = [covered, A, B, [0, 60, 15, 75]]
    results = make_objects(boxes, [0, 1, 2, 3], [9] * 4)
    results['gt_ignore_flags'][2] = True
    out = view(results)
    assert out['gt_view_valid'].tolist() == [False, True, False, True]
    kept = [view.bank.draw(label, out['img'], 'other') is not None for label in range(4)]
    assert kept == [False, True, False, False]


# --- patches


@pytest.mark.parametrize(
    'dtype', ['uint8', 'uint16', 'int32', 'float16', 'float32', 'float64', 'bool']
)
@pytest.mark.parametrize('shape', [(20, 30), (20, 30, 1), (20, 30, 3)])
@pytest.mark.parametrize('size', [(30, 20), (7, 5), (64, 50)])
def test_resizing_keeps_dtype_channels_and_range(dtype, shape, size):
    patch = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    out = resize_patch(patch, *size)
    assert out.dtype == patch.dtype and out.shape == (size[1], size[0], *shape[2:])
    assert out.min() >= patch.min() and out.max() <= patch.max()
    assert not np.shares_memory(out, patch)


def test_shrinking_averages():
    board = np.indices((40, 40)).sum(axis=0) % 2 * 200
    # bilinear sampling of every fourth pixel would give stripes
    assert (resize_patch(board.astype(np.uint8), 10, 40) == 100).all()
    assert (resize_patch(board.astype(np.uint8), 10, 80) == 100).all()


def test_covered_share_against_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        corners = rng.integers(0, 20, (4, 2))
        box, *others = np.concatenate([corners, corners + rng.integers(1, 12, (4, 2))], axis=1)
        covered = [
            any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in others)
            for y in range(box[1], box[3])
            for x in range(box[0], box[2])
        ]
        assert covered_share(box, np.array(others)) == pytest.approx(np.mean(covered))
