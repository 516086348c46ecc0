import runpy
import shutil
import sys

import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from torch import nn

from mmdet_contrast.utils.launch import load_config
from mmdet_contrast.utils.plain_forward import build_detector
from mmdet_contrast.visualization import (
    FeatureMapStyle,
    draw_feature_map,
    feature_map,
    save_feature_maps,
    strongest_channels,
)
from mmdet_contrast.visualization.canvas import enlarge
from mmdet_contrast.visualization.detector_input import DetectorInput
from mmdet_contrast.visualization.heat_map import align_to_image, paint_heat

SIZE = (32, 48)
HEADER = 28


@pytest.fixture
def sample():
    return DetDataSample(metainfo=dict(img_shape=SIZE, batch_input_shape=(32, 64)))


@pytest.fixture
def picture():
    return np.random.RandomState(0).randint(0, 255, (*SIZE, 3), np.uint8)


def panel(drawn, number, columns=4):
    """The pixels of one panel; the first is the image."""
    # panels are 96 wide; those of maps have a bar beside them, and all cells are as wide
    height = HEADER + 64 + 8
    rows = drawn.shape[0] // height
    cells = drawn.shape[1] // min(columns, 1 + number if rows == 1 else columns)
    row, column = divmod(number, columns)
    y, x = row * height + HEADER, column * cells
    return drawn[y : y + 64, x : x + 96]


def test_mean_on_the_picture(sample, picture):
    features = torch.randn(5, 4, 8)
    style = FeatureMapStyle(min_side=96, alpha=0.3)
    drawn = draw_feature_map(features, picture, sample, style)
    large = enlarge(picture, 96)[0]
    assert np.array_equal(panel(drawn, 0), large)
    mean = sum(features[channel] for channel in range(5)) / 5
    heat = align_to_image(mean[None], sample, large.shape[:2])[0]
    difference = panel(drawn, 1).astype(int) - paint_heat(heat, large, 0.3)
    assert np.abs(difference).max() <= 1


def test_padding_of_the_pipeline_is_cut_off(sample, picture):
    # the size in the title is in the pixels, too
    meta = dict(img_shape=(32, 64), ori_shape=(64, 96), scale_factor=(0.5, 0.5))
    padded = DetDataSample(metainfo=dict(meta, batch_input_shape=(32, 64), pad_size_divisor=32))
    features = torch.randn(5, 4, 8)
    drawn = draw_feature_map(features, picture, padded)
    assert np.array_equal(drawn, draw_feature_map(features, picture, sample))


def test_chosen_and_strongest_channels(sample, picture):
    features = torch.randn(6, 4, 8) * torch.tensor([1.0, 9, 2, 7, 3, 8])[:, None, None]
    features[1] = -features[1].abs()
    expected = sorted(range(6), key=lambda c: -sum(abs(v) for v in features[c].flatten().tolist()))
    assert strongest_channels(features, 3) == expected[:3]
    assert strongest_channels(features, 99) == expected
    strongest = draw_feature_map(features, picture, sample, FeatureMapStyle(topk=2, min_side=96))
    chosen = FeatureMapStyle(channels=expected[:2], min_side=96)
    assert np.array_equal(strongest, draw_feature_map(features, picture, sample, chosen))
    swapped = chosen._replace(channels=expected[1::-1])
    assert not np.array_equal(strongest, draw_feature_map(features, picture, sample, swapped))


def test_alone_with_its_cells(sample, picture):
    features = torch.randn(1, 4, 8)
    style = FeatureMapStyle(channels=[0], overlay=False, min_side=96)
    drawn = panel(draw_feature_map(features, picture, sample, style), 1)
    # 4 x 6 of the 4 x 8 cells are image, each 16 x 16 pixels of one colour
    cells = drawn.reshape(4, 16, 6, 16, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    assert len(np.unique(cells[:, 0, :, 0].reshape(-1, 3), axis=0)) > 10


def test_rows_of_channels(sample, picture):
    one = FeatureMapStyle(topk=7, min_side=96)
    drawn = draw_feature_map(torch.randn(9, 4, 8), picture, sample, one)
    narrow = draw_feature_map(torch.randn(9, 4, 8), picture, sample, one._replace(columns=2))
    assert drawn.shape[0] == 2 * (HEADER + 64 + 8) and narrow.shape[0] == 2 * drawn.shape[0]


def test_bad_input_is_one_sentence(sample, picture):
    features = torch.randn(3, 4, 8)
    for style, message in (
        (FeatureMapStyle(topk=1, channels=[0]), 'both topk and channels'),
        (FeatureMapStyle(topk=0), 'topk is 0, but must be at least 1'),
        (FeatureMapStyle(channels=[0, 3]), r'channels are \[0, 3\], but .* the channels 0 to 2'),
        (FeatureMapStyle(channels=[]), r'channels are \[\]'),
        (FeatureMapStyle(columns=0), 'columns is 0'),
        (FeatureMapStyle(alpha=2), 'alpha is 2'),
    ):
        with pytest.raises(ValueError, match=message):
            draw_feature_map(features, picture, sample, style)


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
    monkeypatch.setattr(feature_map, 'read_images', lambda *_: [entry])
    out = tmp_path / 'maps'
    with pytest.raises(ValueError, match=f"'roi_head' gives a map for each of {number} regions"):
        list(save_feature_maps(TwoStages(), str(path), str(out), ['neck', 'roi_head']))
    assert not out.exists()
    (saved,) = save_feature_maps(TwoStages(), str(path), str(out))
    assert saved.out_file == str(out / 'a.neck.0.png')


@pytest.fixture(scope='module')
def checkpoints(repo_root, tmp_path_factory):
    """Untrained weights of two small detectors: name → config and checkpoint."""
    folder, found = tmp_path_factory.mktemp('weights'), {}
    for name, path in (('retina', 'retina_shapes.py'), ('yolov8', 'yolov8/yolov8_n_shapes.py')):
        config = str(repo_root / 'configs' / path)
        torch.manual_seed(0)
        model = build_detector(load_config(config))
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if 'cls' in key and weight.dim() == 4:
                    weight.normal_(0, 0.2)
        meta = dict(dataset_meta=dict(classes=('a', 'b', 'c')))
        file = folder / f'{name}.pth'
        torch.save(dict(state_dict=model.state_dict(), meta=meta), file)
        found[name] = (config, str(file))
    return found


@pytest.fixture
def call(repo_root, monkeypatch, capsys):
    def run(tool, *arguments, status=0):
        path = str(repo_root / 'tools' / 'analysis_tools' / f'{tool}.py')
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *map(str, arguments)])
        capsys.readouterr()
        if status:
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(path, run_name='__main__')
            assert ended.value.code == status
        else:
            runpy.run_path(path, run_name='__main__')
        return capsys.readouterr().out

    return run


@pytest.fixture
def folder(tiny_shapes, tmp_path):
    """Two images and a file that only looks like one."""
    source = sorted((tiny_shapes / 'test').iterdir())
    target = tmp_path / 'images'
    target.mkdir()
    for path in source[:2]:
        shutil.copy(path, target)
    (target / 'broken.jpg').write_bytes(b'no image')
    (target / 'notes.txt').write_text('no image either')
    return target


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
        '--min-side', '96', '--device', 'cpu', status=1,
    )  # fmt: skip
    assert f'{2 * sum(modules.values())} pictures in' in text
    assert 'broken.jpg: cannot be read as an image' in text and 'notes.txt' not in text
    stems = [path.stem for path in folder.iterdir() if path.stem not in ('broken', 'notes')]
    expected = {
        f'{stem}.{module}.{level}.png'
        for stem in stems
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
    call('feature_map', *common, '--level', '1', '--topk', '3', '--min-side', '96')
    assert [path.name for path in out.iterdir()] == [f'{image.stem}.neck.1.png']
    for wrong, message in (
        (('--modules', 'neck.fpn_conv'), "RetinaNet has no module 'neck.fpn_conv': neck has lat"),
        (('--level', '5'), "level is 5, but module 'neck' gave 5 feature maps"),
        (
            ('--channels', '64'),
            r'channels are \[64\], .* has the channels 0 to 63',
        ),
    ):
        with pytest.raises(SystemExit, match=f'feature_map.py: error: .*{message}'):
            call('feature_map', *common, *wrong)
    for arguments, message in (
        ((config, 'no.pth', image), "checkpoint 'no.pth' does not exist"),
        (('no.py', checkpoint, image), "config file 'no.py' does not exist"),
        ((config, checkpoints['yolov8'][1], image), 'the checkpoint does not fit the model'),
        ((config, checkpoint, 'no.jpg'), "'no.jpg' does not exist: give an image or a folder"),
        ((config, checkpoint, tmp_path / 'maps' / '..'), 'has no image'),
    ):
        with pytest.raises(SystemExit, match=f'feature_map.py: error: .*{message}'):
            call('feature_map', *arguments, '--out-dir', out, '--device', 'cpu')


@pytest.mark.parametrize('name', ['retina', 'yolov8'])
@pytest.mark.parametrize('method', ['grad-cam', 'hires-cam', 'ablation-cam', 'eigen-cam'])
def test_cam_tool(call, checkpoints, folder, tmp_path, name, method):
    config, checkpoint = checkpoints[name]
    out = tmp_path / 'cams'
    what = [] if method == 'eigen-cam' else ['--box', '0', '1']
    text = call(
        'cam', config, checkpoint, folder, '--out-dir', out, '--method', method, *what,
        '--score-thr', '0', '--min-side', '96', '--device', 'cpu', '--chunk', '32', '--modules',
        'neck' if name == 'retina' else 'backbone.stage3',
        '--cfg-options', 'model.test_cfg.score_thr=0', status=1,
    )  # fmt: skip
    names = [path.name for path in out.iterdir()]
    assert f'{len(names)} pictures in' in text and len(names) >= 2
    assert all(f'{method}.png' in entry for entry in names)
    # a picture or a sentence for every box
    assert text.count(f'{method} of ') == 2 * max(len(what) - 1, 1)
    assert text.count('box 1: ') == (2 if what else 0)


def test_cam_tool_says_what_it_cannot_draw(call, checkpoints, folder, tmp_path):
    config, checkpoint = checkpoints['retina']
    common = (config, checkpoint, folder, '--out-dir', tmp_path / 'cams', '--device', 'cpu')
    text = call('cam', *common, '--score-thr', '1.5', status=1)
    assert text.count('no box 0: detections with a score of 1.5 or more: 0 (') == 2
    assert '0 pictures in' in text
    text = call('cam', *common, '--class', 'b', '--score-thr', '1.5', status=1)
    assert text.count("no detection of 'b' with a score of 1.5 or more") == 2
    text = call('cam', *common, '--class', 'b', '--reduce', 'max', '--min-side', '96', status=1)
    assert text.count('strongest b: hires-cam of neck[') == 2
    for wrong, message in (
        (('--class', 'd'), "there is no class 'd': the detector knows a, b, c"),
        (('--modules', 'necks'), "RetinaNet has no module 'necks'"),
        (('--level', '9'), "level is 9, but module 'neck' gave 5"),
        (('--alpha', '-1'), 'alpha is -1.0'),
        (('--method', 'eigen-cam', '--class', 'a'), 'eigen-cam explains neither a box nor a'),
        (('--method', 'eigen-cam', '--box', '1'), 'eigen-cam explains neither a box nor a class'),
        (('--out-dir', folder / 'notes.txt'), 'results cannot be written to'),
    ):
        with pytest.raises(SystemExit, match=f'cam.py: error: .*{message}'):
            call('cam', *common, '--score-thr', '0', *wrong, '--cfg-options',
                 'model.test_cfg.score_thr=0')  # fmt: skip
