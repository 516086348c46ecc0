import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from mmdet_contrast.visualization.heat_map import add_colour_bar, align_to_image, paint_heat


def sample_of(img_shape, batch_input_shape):
    return DetDataSample(metainfo=dict(img_shape=img_shape, batch_input_shape=batch_input_shape))


def test_padding_is_cut_and_resizing_undone():
    # An image of 96 x 160 was resized to 48 x 80 and padded to 64 x 96, strides of 8.
    sample = sample_of((48, 80), (64, 96))
    for row, column in ((0, 0), (5, 9), (2, 4)):
        cells = torch.zeros(1, 8, 12)
        cells[0, row, column] = 1
        aligned = align_to_image(cells, sample, (96, 160), mode='nearest')[0]
        expected = torch.zeros(96, 160)
        expected[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = 1
        assert torch.equal(aligned, expected)
        smooth = align_to_image(cells, sample, (96, 160))[0]
        # the centre of mass of what is smooth is that of the cell, but for cells at the border
        if 0 < row < 5 and 0 < column < 9:
            rows = (smooth.sum(1) * (torch.arange(96) + 0.5)).sum() / smooth.sum()
            columns = (smooth.sum(0) * (torch.arange(160) + 0.5)).sum() / smooth.sum()
            assert float(rows) == pytest.approx(row * 16 + 8, abs=0.1)
            assert float(columns) == pytest.approx(column * 16 + 8, abs=0.1)
    padding = torch.zeros(1, 8, 12)
    padding[0, 6:] = padding[0, :, 10:] = 1
    assert float(align_to_image(padding, sample, (96, 160), mode='nearest').max()) == 0


def test_without_padding_and_in_half_precision():
    cells = torch.arange(6.0).reshape(1, 2, 3).half()
    aligned = align_to_image(cells, sample_of((2, 3), (2, 3)), (2, 3))
    assert aligned.dtype == torch.float32
    torch.testing.assert_close(aligned, cells.float())


def test_not_finite_is_said():
    with pytest.raises(ValueError, match='values that are not finite'):
        align_to_image(torch.full((1, 2, 2), float('nan')), sample_of((2, 2), (2, 2)), (2, 2))


def test_colours_and_blend():
    heat = torch.tensor([[0.0, 0.5], [0.25, 1.0]])
    painted = paint_heat(heat)
    assert painted.shape == (2, 2, 3) and painted.dtype == np.uint8
    # blue at the least value, red at the greatest
    assert painted[0, 0].argmax() == 2 and painted[1, 1].argmax() == 0
    picture = np.full((2, 2, 3), 200, np.uint8)
    blend = paint_heat(heat, picture, alpha=0.25)
    expected = 0.75 * picture + 0.25 * painted.astype(float)
    assert np.abs(blend - expected).max() <= 1
    assert np.array_equal(paint_heat(heat, picture, alpha=0), picture)
    # a map without contrast is blue, not noise
    assert (paint_heat(torch.full((2, 2), 3.0)) == painted[0, 0]).all()
    with pytest.raises(ValueError, match=r'alpha is 1.5, but must lie in \[0, 1\]'):
        paint_heat(heat, picture, alpha=1.5)


def test_colour_bar():
    picture = np.zeros((60, 40, 3), np.uint8)
    barred = add_colour_bar(picture, -1.25, 3)
    assert barred.shape[0] == 60 and barred.shape[1] > 60
    assert np.array_equal(barred[:, :40], picture)
    ramp = barred[:, 56]
    assert ramp[0].argmax() == 0 and ramp[-1].argmax() == 2
    assert not np.array_equal(barred, add_colour_bar(picture, -1.25, 4))
