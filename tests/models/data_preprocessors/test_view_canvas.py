import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmdet_contrast.models.data_preprocessors import ViewCanvas

BLANK = torch.tensor([10.0, 20.0, 30.0])[:, None, None]


def make_view(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(100, 255, (3, height, width), generator=generator).byte()


def make_sample(boxes, labels=None, valid=None, wrap=False):
    boxes = torch.tensor(boxes, dtype=torch.float).reshape(-1, 4)
    labels = torch.zeros(len(boxes)).long() if labels is None else torch.tensor(labels)
    instances = InstanceData(bboxes=HorizontalBoxes(boxes) if wrap else boxes, labels=labels)
    if valid is not None:
        instances.view_valid = torch.tensor(valid, dtype=torch.bool)
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64)))
    sample.gt_instances = instances
    return sample


def shown(canvases, samples):
    """What each canvas shows of each box: {(image, row): pixels}."""
    found = {}
    for canvas, sample in zip(canvases, samples):
        instances = sample.gt_instances
        for box, image, row in zip(
            instances.bboxes, instances.source_image.tolist(), instances.source_box.tolist()
        ):
            x1, y1, x2, y2 = box.round().int().tolist()
            assert (image, row) not in found
            found[image, row] = canvas[:, y1:y2, x1:x2]
    return found


BOXES = st.lists(
    st.tuples(st.integers(0, 80), st.integers(0, 56), st.integers(4, 96), st.integers(4, 64)),
    max_size=12,
)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(BOXES, min_size=1, max_size=4),
    st.sampled_from([0, 5]),
    st.sampled_from([0, 8, 11]),
    st.sampled_from([1, 8, 32]),
    st.sampled_from(['random', 'small']),
)
def test_a_canvas_shows_the_pixels_of_the_view(per_image, context, gap, stride, order):
    views = [make_view(64, 96, seed) for seed in range(len(per_image))]
    samples = [
        make_sample([(x, y, min(x + w, 96), min(y + h, 64)) for x, y, w, h in boxes])
        for boxes in per_image
    ]
    canvas = ViewCanvas(share=0.5, context=context, gap=gap, stride=stride, order=order)
    canvases, canvas_samples = canvas(views, samples, (64, 96), BLANK)
    assert len(canvases) == len(canvas_samples) <= max(1, int(len(views) / 2 + 0.5))
    found = shown(canvases, canvas_samples)
    for (image, row), pixels in found.items():
        x1, y1, x2, y2 = samples[image].gt_instances.bboxes[row].int().tolist()
        assert torch.equal(pixels, views[image][:, y1:y2, x1:x2])
    for image, sample in enumerate(samples):
        left_out = len(sample.gt_instances) - sum(key[0] == image for key in found)
        assert sample.canvas_left_out == left_out
    assert bool(found) == any(per_image)
    for sample in canvas_samples:
        assert len(sample.gt_instances) and sample.view == 1 and sample.canvas is True
        boxes = sample.gt_instances.bboxes
        assert (boxes >= 0).all() and (boxes[:, 2:] <= torch.tensor([96, 64])).all()


def test_crops_keep_their_place_on_the_grid_of_the_features():
    sample = make_sample([[13, 21, 30.5, 40], [50, 3, 61, 14]])
    _, (out,) = ViewCanvas(stride=8)([make_view(64, 96)], [sample], (64, 96), BLANK)
    rows = out.gt_instances.source_box
    moved = out.gt_instances.bboxes - sample.gt_instances.bboxes[rows]
    assert (moved % 8 == 0).all()
    assert torch.equal(moved[:, :2], moved[:, 2:])


def test_context_and_gap_around_a_crop():
    view = make_view(64, 96)
    boxes = [[16, 16, 24, 24], [48, 40, 56, 48]]
    (canvas,), (out,) = ViewCanvas(context=8, gap=8, stride=8)(
        [view], [make_sample(boxes)], (64, 96), BLANK
    )
    assert sorted(out.gt_instances.bboxes.tolist()) == [[8, 8, 16, 16], [40, 8, 48, 16]]
    first = boxes[out.gt_instances.source_box[out.gt_instances.bboxes[:, 0].argmin()]]
    x, y = first[0] - 8, first[1] - 8
    assert torch.equal(canvas[:, :24, :24], view[:, y : y + 24, x : x + 24])
    blank = BLANK.byte().expand(3, 64, 96)
    assert torch.equal(canvas[:, :24, 24:32], blank[:, :24, 24:32])
    assert torch.equal(canvas[:, 24:], blank[:, 24:])


def test_views_boxes_and_validity():
    view, other = make_view(64, 96), make_view(64, 96, seed=1)
    first = make_sample([[0, 0, 16, 16], [32, 32, 48, 48]], labels=[2, 1], valid=[True, True])
    first.gt_instances.view_bboxes = torch.tensor([[80.0, 0, 96, 16], [48, 32, 64, 48]])
    second = make_sample([[8, 8, 16, 16], [24, 24, 40, 40]], labels=[0, 0], valid=[False, True])
    third = make_sample([[8, 8, 16, 16]])
    canvases, samples = ViewCanvas()([view, other, None], [first, second, third], (64, 96), BLANK)
    found = shown(canvases, samples)
    assert set(found) == {(0, 0), (0, 1), (1, 1)}
    assert torch.equal(found[0, 0], view[:, :16, 80:96])
    assert torch.equal(found[0, 1], view[:, 32:48, 48:64])
    instances = samples[0].gt_instances
    pairs = zip(instances.source_image, instances.source_box, instances.labels)
    labels = {(int(i), int(b)): int(label) for i, b, label in pairs}
    assert labels == {(0, 0): 2, (0, 1): 1, (1, 1): 0}
    # a box that is not wanted, and an image without a view, miss nothing
    assert [s.canvas_left_out for s in (first, second, third)] == [0, 0, 0]


def test_shrinking():
    view = torch.zeros(3, 64, 96, dtype=torch.uint8)
    view[:, 8:40, 16:80] = 200
    sample = make_sample([[16, 8, 80, 40]], wrap=True)
    (canvas,), (out,) = ViewCanvas(scale=0.5, stride=8)([view], [sample], (64, 96), BLANK)
    assert isinstance(out.gt_instances.bboxes, HorizontalBoxes)
    assert out.gt_instances.bboxes.tensor.tolist() == [[0, 0, 32, 16]]
    assert (canvas[:, :16, :32] == 200).all() and (canvas[:, 16:] < 200).all()
    _, (out,) = ViewCanvas(max_size=16)([view], [sample], (64, 96), BLANK)
    assert out.gt_instances.bboxes.tensor.tolist() == [[0, 0, 16, 8]]
    floats = view.float() / 3
    (canvas,), _ = ViewCanvas(max_size=16)([floats], [sample], (64, 96), BLANK)
    assert canvas.dtype == torch.float32
    torch.testing.assert_close(canvas[:, :8, :16], torch.full((3, 8, 16), 200 / 3))


def test_a_box_as_large_as_the_image_and_boxes_that_show_nothing():
    view = make_view(50, 70)
    # the second shares a cell of the grid with the image, and no pixel
    boxes = [[-5, -5, 90, 90], [71, 0, 95, 20], [10, 10, 10, 10], [np.nan, 0, 5, 5]]
    boxes += [[80, 0, 95, 20], [-10, 0, -1, 9]]
    sample = make_sample(boxes)
    (canvas,), (out,) = ViewCanvas(context=4)([view], [sample], (64, 96), BLANK)
    assert out.gt_instances.source_box.tolist() == [0]
    assert out.gt_instances.bboxes.tolist() == [[0, 0, 70, 50]]
    assert torch.equal(canvas[:, :50, :70], view)
    assert sample.canvas_left_out == 5


@pytest.mark.parametrize('order', ['random', 'small'])
def test_rare_classes_come_first(order):
    # 20 boxes of class 0 and one of 1 and of 2 each, though only six fit
    boxes = [[8 * i, 8 * i % 40, 8 * i + 16, 8 * i % 40 + 16] for i in range(8)] * 3
    labels = [0] * 10 + [1] + [0] * 11 + [2, 0]
    sample = make_sample(boxes, labels=labels)
    canvas = ViewCanvas(order=order)
    _, (out,) = canvas([make_view(64, 96)], [sample], (48, 72), BLANK)
    assert {1, 2} < set(out.gt_instances.labels.tolist())
    assert sample.canvas_left_out == 24 - len(out.gt_instances) > 0


def test_the_choice_follows_the_seed():
    boxes = [[0, 0, 20, 20]] * 40
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        _, (out,) = ViewCanvas()([make_view(64, 96)], [make_sample(boxes)], (64, 96), BLANK)
        draws.append(sorted(out.gt_instances.source_box.tolist()))
    assert draws[0] == draws[1] != draws[2]


def test_small_boxes_first():
    sizes = [30, 10, 28, 12, 26, 14, 40]
    sample = make_sample([[0, 0, s, s] for s in sizes])
    canvas = ViewCanvas(order='small', stride=1, gap=0)
    _, (out,) = canvas([make_view(64, 96)], [sample], (32, 48), BLANK)
    rows = sorted(out.gt_instances.source_box.tolist())
    assert [sizes[i] for i in rows] == [10, 12, 14]


def test_number_of_canvases():
    def most(batch, **options):
        return ViewCanvas(**options)._most_canvases(batch)

    assert [most(n) for n in (1, 2, 4, 5, 6, 8, 16)] == [1, 1, 1, 1, 2, 2, 4]
    assert most(4, share=1.0) == 4
    assert most(16, max_images=3) == 3


def test_no_box_makes_no_canvas():
    sample = make_sample([])
    assert ViewCanvas()([make_view(64, 96)], [sample], (64, 96), BLANK) == ([], [])
    assert sample.canvas_left_out == 0


@pytest.mark.parametrize(
    'options',
    [
        dict(share=0),
        dict(share=1.5),
        dict(max_images=0),
        dict(context=-1),
        dict(gap=-1),
        dict(stride=0),
        dict(scale=0.0),
        dict(scale=2.0),
        dict(max_size=0),
        dict(order='large'),
    ],
)
def test_options_out_of_range(options):
    (name,) = options
    with pytest.raises(ValueError, match=f'data_preprocessor.canvas got {name}='):
        ViewCanvas(**options)
