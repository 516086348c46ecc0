import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from mmdet_contrast.utils.launch import load_config
from mmdet_contrast.visualization.detector_input import read_images
from mmdet_contrast.visualization.heat_map import add_colour_bar, align_to_image, paint_heat
from mmdet_contrast.visualization.module_capture import ModuleCapture

sys.path.insert(0, str(Path(__file__).parent))
from cam_toys import colour_detector, reading_files  # noqa: E402


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


@pytest.mark.parametrize('shape', [(160, 320), (320, 160)])
def test_an_object_is_hot_where_it_is_behind_pad(repo_root, tmp_path, shape):
    config = load_config(str(repo_root / 'configs' / 'yolov8' / 'yolov8_n_coco.py'))
    pipeline = config.test_dataloader.dataset.pipeline
    assert any(step['type'] == 'Pad' for step in pipeline)
    detector = reading_files(colour_detector(), pipeline)
    x1, y1, x2, y2 = box = (shape[1] - 60, shape[0] - 60, shape[1] - 20, shape[0] - 20)
    picture = np.zeros((*shape, 3), np.uint8)
    picture[y1:y2, x1:x2] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    (entry,) = read_images(detector, [str(tmp_path / 'a.png')])
    # the shape in the metadata is that of the padded image
    assert entry.sample.img_shape == entry.inputs.shape[-2:] == (640, 640)
    with ModuleCapture(detector, ['backbone']) as capture, torch.no_grad():
        detector.extract_feat(entry.inputs)
    for mode in ('nearest', 'bilinear'):
        red = align_to_image(capture.maps[0].features[0, :1], entry.sample, shape, mode)[0]
        rows, columns = (red > 0.5).nonzero().unbind(1)
        extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        # cells are 4 pixels wide here
        assert np.abs(np.subtract(extent, box)).max() <= 2
        row, column = divmod(int(red.argmax()), shape[1])
        assert x1 <= column < x2 and y1 <= row < y2


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
