"""The primitives of drawing."""

import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_contrast.visualization.canvas import (
    DrawnBox,
    draw_boxes,
    grid,
    palette,
    save_picture,
    shorten,
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
    return np.flatnonzero((picture[:32] < 128).all(-1).any(0))


def test_titles_of_narrow_panels_are_whole_and_apart():
    panels = [np.full((40, 30, 3), ink, np.uint8) for ink in (200, 220)]
    title = 'boxes in the view (12 boxes)'
    alone = grid(panels[:1], [title])
    both = grid(panels, [title, title])
    assert both.shape[1] == 2 * alone.shape[1] + 8
    assert np.array_equal(both[:, : alone.shape[1]], alone)
    assert np.array_equal(dark_columns(both[:, alone.shape[1] + 8 :]), dark_columns(alone))
    # what is beyond the title is white
    wide = grid([np.zeros((40, 600, 3), np.uint8)], [title])
    assert np.array_equal(dark_columns(wide), dark_columns(alone))
    assert (both[32:, alone.shape[1] + 8 :][:, :30] == 220).all()


def test_rows_and_columns_are_as_large_as_their_largest_picture():
    sizes = [(10, 20), (30, 5), (7, 40)]
    sheet = grid([np.full((*size, 3), 9, np.uint8) for size in sizes], columns=2)
    assert sheet.shape == (30 + 8 + 7, 40 + 8 + 5, 3)
    drawn = (sheet == 9).all(-1)
    assert drawn[:10, :20].all() and drawn[:30, 48:].all() and drawn[38:, :40].all()
    assert drawn.sum() == sum(height * width for height, width in sizes)


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
    assert shorten('cat 0.90', 200, 14) == 'cat 0.90'
    short = shorten('x' * 200 + ' 0.90', 200, 14)
    assert text_size(short, 14)[0] <= 200
    assert short.startswith('xxxx') and short.endswith('…x 0.90')
    # nothing is left to cut
    assert shorten('abc', 1, 14) == 'abc'


@pytest.mark.parametrize('text', ['y' * 200, 'two\nlines', '', '\u505c\u6b62 \U0001f642'])
@pytest.mark.parametrize('size', [(60, 100), (2, 300), (300, 2), (1, 1)])
def test_any_name_fits_in_any_picture(text, size):
    image = np.zeros((*size, 3), np.uint8)
    draw_boxes(image, [DrawnBox((40, 30, 60, 50), (250, 0, 0), text)])
    assert image[..., 0].any()


def test_names_do_not_bury_a_crowded_picture():
    corners = np.stack([np.arange(1000.0) % 40 * 5, np.arange(1000) // 40 * 7.0], 1) + 10
    boxes = [DrawnBox((x, y, x + 30, y + 30), (0, 200, 0), 'object 0.50') for x, y in corners]
    plain, few, many = (np.zeros((200, 300, 3), np.uint8) for _ in range(3))
    draw_boxes(plain, [box._replace(text='') for box in boxes])
    draw_boxes(few, boxes[:3])
    draw_boxes(many, boxes)
    # names are written in white on this green
    assert 0 < (few == 255).all(-1).sum() < (many == 255).all(-1).sum()
    # the sixth name finds a quarter of the picture covered
    assert (many != plain).any(-1).mean() < 0.5
