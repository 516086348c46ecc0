"""The primitives of drawing."""

import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_contrast.visualization.canvas import save_picture, stack_panels, to_array


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
