"""Maps laid over pictures: aligned, coloured, beside their scale; and the tool that draws them."""

import cv2
import mmcv
import numpy as np
import pytest
import torch
from cam_toys import colour_detector, reading_files
from mmdet.structures import DetDataSample
from torch import nn

from mmdet_contrast import config_path
from mmdet_contrast.utils.config import load_config
from mmdet_contrast.utils.model import ModuleCapture
from mmdet_contrast.visualization import feature_map
from mmdet_contrast.visualization.canvas import enlarge
from mmdet_contrast.visualization.detector_input import DetectorInput, read_images
from mmdet_contrast.visualization.feature_map import (
    add_colour_bar,
    align_to_image,
    draw_feature_map,
    paint_heat,
    save_feature_maps,
    strongest_channels,
)

SIZE = (32, 48)
HEADER = 32


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
def test_an_object_is_hot_where_it_is_behind_pad(tmp_path, shape):
    config = load_config(config_path('yolov8_n_coco.py'))
    pipeline = config.test_dataloader.dataset.pipeline
    assert any(step['type'] == 'Pad' for step in pipeline)
    detector = reading_files(colour_detector(), pipeline)
    x1, y1, x2, y2 = box = (shape[1] - 60, shape[0] - 60, shape[1] - 20, shape[0] - 20)
    picture = np.zeros((*shape, 3), np.uint8)
    picture[y1:y2, x1:x2] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    (entry,) = read_images(detector, str(tmp_path / 'a.png'))
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
    blend = paint_heat(heat, picture)
    expected = 0.5 * picture + 0.5 * painted.astype(float)
    assert np.abs(blend - expected).max() <= 1
    # a map without contrast is blue, not noise
    assert (paint_heat(torch.full((2, 2), 3.0)) == painted[0, 0]).all()


def test_colour_bar():
    picture = np.zeros((60, 40, 3), np.uint8)
    barred = add_colour_bar(picture, -1.25, 3)
    assert barred.shape[0] == 60 and barred.shape[1] > 60
    assert np.array_equal(barred[:, :40], picture)
    ramp = barred[:, 56]
    assert ramp[0].argmax() == 0 and ramp[-1].argmax() == 2
    assert not np.array_equal(barred, add_colour_bar(picture, -1.25, 4))


@pytest.fixture
def sample():
    return DetDataSample(metainfo=dict(img_shape=SIZE, batch_input_shape=(32, 64)))


@pytest.fixture
def picture():
    return np.random.RandomState(0).randint(0, 255, (*SIZE, 3), np.uint8)


def test_mean_on_the_picture(sample, picture):
    features = torch.randn(5, 4, 8)
    drawn = draw_feature_map(features, picture, sample)
    large, factor = enlarge(picture)
    assert factor == 14
    height, width = large.shape[:2]
    assert np.array_equal(drawn[HEADER:, :width], large)
    mean = sum(features[channel] for channel in range(5)) / 5
    heat = align_to_image(mean[None], sample, (height, width))[0]
    painted = drawn[HEADER:, width + 8 : 2 * width + 8].astype(int)
    assert np.abs(painted - paint_heat(heat, large)).max() <= 1


def test_chosen_and_strongest_channels(sample, picture):
    features = torch.randn(6, 4, 8) * torch.tensor([1.0, 9, 2, 7, 3, 8])[:, None, None]
    features[1] = -features[1].abs()
    expected = sorted(range(6), key=lambda c: -sum(abs(v) for v in features[c].flatten().tolist()))
    assert strongest_channels(features, 3) == expected[:3]
    assert strongest_channels(features, 99) == expected
    strongest = draw_feature_map(features, picture, sample, topk=2)
    chosen = draw_feature_map(features, picture, sample, channels=expected[:2])
    assert np.array_equal(strongest, chosen)
    swapped = draw_feature_map(features, picture, sample, channels=expected[1::-1])
    assert not np.array_equal(strongest, swapped)


@pytest.mark.parametrize('number', [0, 3])
def test_maps_of_regions_are_refused(sample, picture, monkeypatch, tmp_path, number):
    class TwoStages(nn.Module):
        def __init__(self):
            super().__init__()
            self.neck = nn.Conv2d(3, 4, 3)
            self.roi_head = nn.Conv2d(4, 2, 1)

        def predict(self, inputs, _):
            self.roi_head(self.neck(inputs)[:, :, :7, :7].repeat(number, 1, 1, 1))

    path = tmp_path / 'a.png'
    path.touch()
    entry = DetectorInput(str(path), picture, torch.zeros(1, 3, 32, 64), sample)
    monkeypatch.setattr(feature_map, 'read_images', lambda *_: iter([entry]))
    out = tmp_path / 'maps'
    with pytest.raises(ValueError, match=f"'roi_head' gives a map for each of {number} regions"):
        list(save_feature_maps(TwoStages(), str(path), str(out), ['neck', 'roi_head']))
    assert not out.exists()
    (saved,) = save_feature_maps(TwoStages(), str(path), str(out))
    assert saved.out_file == str(out / 'a.png.neck.0.png')


@pytest.mark.parametrize(
    ('name', 'modules'),
    [
        ('retina', {'backbone.layer2': 1, 'neck': 5, 'neck.fpn_convs.0': 1}),
        ('yolov8', {'backbone.stage2': 1, 'neck': 3, 'bbox_head.head_module': 6}),
    ],
)
def test_tool(call, checkpoints, folder, tmp_path, name, modules):
    config, checkpoint = checkpoints[name]
    out = tmp_path / 'maps'
    text = call(
        'feature_map', config, checkpoint, folder, '--out-dir', out, '--modules', *modules,
        '--device', 'cpu', status=1,
    )  # fmt: skip
    assert f'{2 * sum(modules.values())} pictures in' in text
    assert 'broken.jpg: cannot be used: ' in text and 'notes.txt' not in text
    names = [path.name for path in folder.iterdir() if path.stem not in ('broken', 'notes')]
    expected = {
        f'{name}.{module}.{level}.png'
        for name in names
        for module, levels in modules.items()
        for level in range(levels)
    }
    assert {path.name for path in out.iterdir()} == expected
    assert all(mmcv.imread(str(path)) is not None for path in out.iterdir())


def test_tool_with_channels_of_one_level(call, checkpoints, folder, tmp_path):
    config, checkpoint = checkpoints['retina']
    image = next(
        path for path in folder.iterdir() if path.stem != 'broken' and path.suffix != '.txt'
    )
    out = tmp_path / 'maps'
    common = (config, checkpoint, image, '--out-dir', out, '--device', 'cpu')
    call('feature_map', *common, '--level', '1', '--topk', '3')
    assert [path.name for path in out.iterdir()] == [f'{image.name}.neck.1.png']
    for wrong, message in (
        ((config, 'no.pth', image), 'no.pth'),
        (('no.py', checkpoint, image), "config file 'no.py' does not exist"),
        ((config, checkpoints['yolov8'][1], image), 'the checkpoint does not fit the model'),
        ((config, checkpoint, 'no.jpg'), "'no.jpg' is neither an image nor a folder"),
    ):
        with pytest.raises(SystemExit, match=f'feature_map.py: error: .*{message}'):
            call('feature_map', *wrong, '--out-dir', out, '--device', 'cpu')


def test_maps_on_a_gpu(sample, picture, on_gpu):
    features = torch.randn(3, 4, 8)
    for options in ({}, dict(topk=2, overlay=False)):
        drawn = draw_feature_map(on_gpu(features), picture, sample, **options)
        difference = drawn.astype(int) - draw_feature_map(features, picture, sample, **options)
        assert np.abs(difference).max() <= 1
