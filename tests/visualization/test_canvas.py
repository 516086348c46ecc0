"""The primitives of drawing."""

import mmcv
import numpy as np
import pytest

from mmdet_contrast.visualization.canvas import save_picture, stack_panels


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


def test_pictures_are_written_or_it_is_said_why_not(tmp_path):
    picture = np.random.RandomState(0).randint(0, 255, (6, 8, 3), np.uint8)
    save_picture(picture, str(tmp_path / 'new' / 'a.png'))
    assert np.array_equal(
        mmcv.imread(str(tmp_path / 'new' / 'a.png'), channel_order='rgb'), picture
    )
    (tmp_path / 'file').write_text('')
    for name in ('a', 'a.xyz', 'file/a.png'):
        with pytest.raises(OSError, match=f'{name}. cannot be written .*a name that ends in .png'):
            save_picture(picture, str(tmp_path / name))
