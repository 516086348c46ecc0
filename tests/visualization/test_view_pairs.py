"""Pictures of view pairs: which boxes are drawn how."""

import numpy as np
import pytest

from mmdet_contrast.visualization import draw_view_pair
from mmdet_contrast.visualization.canvas import GREY, palette


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


@pytest.fixture
def pair():
    return np.zeros((2, 100, 100, 3), np.uint8)


def test_each_side_gets_the_box_in_the_colour_of_its_class(pair):
    picture = draw_view_pair(pair, np.array([[20.0, 20, 60, 60]]), [1], ['a', 'b'], min_panel=100)
    first, second = palette(2)
    assert picture.shape[0] == 128
    assert count(picture[:, :100], second) > 100 and count(picture[:, 108:], second) > 100
    assert count(picture, first) == 0
    # Under the header the left side of the box runs from y = 20 to y = 60.
    assert (picture[28 + 45, 19:21] == second).all()


def test_left_out_boxes_are_dashed_and_grey(pair):
    boxes = np.array([[10.0, 10, 90, 90]])
    solid = draw_view_pair(pair, boxes, [0], ['a'], [True], min_panel=100)
    dashed = draw_view_pair(pair, boxes, [0], ['a'], [False], min_panel=100)
    # Below the header, whose smoothed text is grey here and there.
    assert count(solid[28:], GREY) == 0 and count(dashed, palette(1)[0]) == 0
    column = dashed[28 + 40 : 28 + 88, 10]
    grey = (column == np.array(GREY)).all(-1)
    assert 0.2 < grey.mean() < 0.9  # gaps


def test_moved_boxes_are_drawn_where_the_view_has_them(pair):
    boxes, moved = np.array([[5.0, 50, 25, 95]]), np.array([[75.0, 50, 95, 95]])
    picture = draw_view_pair(pair, boxes, [0], ['a'], view_bboxes=moved, min_panel=100)
    colour = palette(1)[0]
    left, right = picture[28:, :100], picture[28:, 108:]
    assert count(left[:, :50], colour) > 0 and count(left[:, 50:], colour) == 0
    assert count(right[:, :50], colour) == 0 and count(right[:, 50:], colour) > 0


def test_ignored_boxes_appear_in_the_original_only(pair):
    ignored = np.array([[10.0, 10, 90, 90]])
    picture = draw_view_pair(
        pair, np.zeros((0, 4)), [], ['a'], ignored_bboxes=ignored, min_panel=100
    )
    assert count(picture[:, :100], GREY) > 0 and count(picture[:, 108:], GREY) == 0


def test_small_images_are_enlarged_by_a_whole_factor():
    picture = draw_view_pair(np.zeros((2, 128, 96, 3), np.uint8), np.zeros((0, 4)), [], ['a'])
    assert picture.shape == (28 + 4 * 128, 2 * 4 * 96 + 8, 3)


def test_inputs_are_not_drawn_on(pair):
    draw_view_pair(pair, np.array([[20.0, 20, 60, 60]]), [0], ['a'], min_panel=100)
    assert pair.max() == 0


def test_a_single_view_is_refused():
    with pytest.raises(ValueError, match='ContrastiveView and PackContrastiveInputs'):
        draw_view_pair(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((0, 4)), [], ['a'])
