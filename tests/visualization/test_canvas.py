"""The primitives of drawing."""

import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_contrast.visualization.canvas import (
    draw_label,
    draw_named_boxes,
    palette,
    save_picture,
    shorten,
    stack_panels,
    text_size,
    to_array,
)


def test_arrays_of_anything(on_gpu):
    boxes = torch.tensor([[1.0, 2, 3, 4]], requires_grad=True)
    for given in (boxes, boxes.bfloat16(), HorizontalBoxes(boxes), [[1, 2, 3, 4]]):
        assert to_array(given).tolist() == [[1, 2, 3, 4]]
    for given in (boxes, HorizontalBoxes(boxes)):
        assert to_array(on_gpu(given)).tolist() == [[1, 2, 3, 4]]


def dark_columns(picture):
    """Columns of the header with letters in them."""
    return np.flatnonzero((picture[:28] < 128).all(-1).any(0))


def test_titles_of_narrow_panels_are_whole_and_apart():
    panels = [np.full((40, 30, 3), ink, np.uint8) for ink in (200, 220)]
    title = 'boxes in the view (12 boxes)'
    alone = stack_panels(panels[:1], [title])
    both = stack_panels(panels, [title, title])
    assert both.shape[1] == 2 * alone.shape[1] + 8
    assert np.array_equal(both[:, : alone.shape[1]], alone)
    assert np.array_equal(dark_columns(both[:, alone.shape[1] + 8 :]), dark_columns(alone))
    # what is beyond the title is white
    wide = stack_panels([np.zeros((40, 600, 3), np.uint8)], [title])
    assert np.array_equal(dark_columns(wide), dark_columns(alone))
    assert (both[28:, alone.shape[1] + 8 :][:, :30] == 220).all()


def test_pictures_are_written(tmp_path):
    picture = np.random.RandomState(0).randint(0, 255, (6, 8, 3), np.uint8)
    save_picture(picture, str(tmp_path / 'new' / 'a.png'))
    assert np.array_equal(
        mmcv.imread(str(tmp_path / 'new' / 'a.png'), channel_order='rgb'), picture
    )


def test_colours_are_distinct_and_stay_with_their_class():
    assert len(set(palette(1203))) == 1203
    assert palette(300)[:7] == palette(7)
    given = [(220, 20, 60), palette(1)[0]]
    mixed = palette(90, given)
    assert mixed[:2] == given and len(set(mixed)) == len(mixed) == 90
    assert palette(1, given) == given[:1]


def test_long_names_are_shortened_to_the_picture():
    assert shorten('cat 0.90', 200) == 'cat 0.90'
    short = shorten('x' * 200 + ' 0.90', 200)
    assert text_size(short)[0] <= 200 and short.startswith('xxxx') and short.endswith('…x 0.90')
    # nothing is left to cut
    assert shorten('abc', 1) == 'abc'
    image = np.zeros((60, 100, 3), np.uint8)
    draw_label(image, [40, 30, 60, 50], 'y' * 200, (250, 0, 0))
    assert image[..., 0].any()


def test_names_do_not_bury_a_crowded_picture():
    boxes = np.stack([np.arange(1000.0) % 40 * 5, np.arange(1000) // 40 * 7.0] * 2, 1) + 10
    boxes[:, 2:] += 30
    drawn = [np.zeros((200, 300, 3), np.uint8) for _ in range(2)]
    colours = [(0, 200, 0)] * 1000
    draw_named_boxes(drawn[0], boxes, ['object 0.50'] * 1000, colours)
    draw_named_boxes(drawn[1], boxes[:3], ['object 0.50'] * 3, colours[:3])
    names = [(picture == 255).all(-1).sum() for picture in drawn]
    # names are written in white on this green
    assert 0 < names[1] < names[0]
    taken = []
    for box in boxes:
        draw_label(np.zeros((200, 300, 3), np.uint8), box, 'object 0.50', (0, 200, 0), 11, taken)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in taken]
    assert len(taken) >= 3 and sum(areas[:-1]) < 200 * 300 / 2
