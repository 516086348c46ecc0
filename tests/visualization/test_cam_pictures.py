"""Heat maps of the images of a folder, and what becomes of the caller meanwhile."""

import cv2
import numpy as np
import pytest
import torch
from cam_toys import colour_detector, reading_files, tiny_transformer

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.visualization.cam import METHODS
from mmdet_contrast.visualization.cam_pictures import save_cams

PIPELINE = [
    dict(type='mmcv.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(96, 96), keep_ratio=True),
    dict(type='mmdet.PackDetInputs'),
]


@pytest.fixture
def images(tmp_path):
    """Two images of a red square."""
    folder = tmp_path / 'images'
    folder.mkdir()
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[16:24, 24:32] = (0, 0, 255)
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(folder / name), picture)
    return str(folder)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('enabled', [True, False])
def test_gradients_of_the_caller_are_left_as_they_are(images, tmp_path, method, enabled):
    detector = reading_files(colour_detector(), PIPELINE)
    options = dict(modules=['backbone'], method=method)
    with torch.set_grad_enabled(enabled):
        within = []
        for saved in save_cams(detector, images, str(tmp_path / 'cams'), **options):
            assert saved.out_file is not None, saved.note
            within.append(torch.is_grad_enabled())
        assert within == [enabled] * 2
        assert torch.is_grad_enabled() == enabled
        # a loop that is left early
        left = save_cams(detector, images, str(tmp_path / 'cams'), **options)
        next(left)
        left.close()
        assert torch.is_grad_enabled() == enabled


def test_transformers_are_refused(images, tmp_path):
    detector = reading_files(tiny_transformer(), PIPELINE)
    with pytest.raises(LaunchError, match='DETR has no dense head'):
        list(save_cams(detector, images, str(tmp_path / 'cams'), score_thr=0.0))


def test_detectors_on_a_gpu(images, tmp_path, on_gpu):
    options, pictures = dict(modules=['backbone']), []
    for move in (lambda detector: detector, on_gpu):
        detector = move(reading_files(colour_detector(), PIPELINE))
        saved = next(save_cams(detector, images, str(tmp_path / 'cams'), **options))
        pictures.append(cv2.imread(saved.out_file).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 2


@pytest.mark.parametrize(('name', 'method'), [('retina', 'grad-cam'), ('yolov8', 'hires-cam')])
def test_cam_tool(call, checkpoints, folder, tmp_path, name, method):
    config, checkpoint = checkpoints[name]
    out = tmp_path / 'cams'
    text = call(
        'cam', config, checkpoint, folder, '--out-dir', out, '--method', method, '--box', '0', '1',
        '--score-thr', '0', '--device', 'cpu', '--modules',
        'neck' if name == 'retina' else 'backbone.stage3',
        '--cfg-options', 'model.test_cfg.score_thr=0', status=1,
    )  # fmt: skip
    names = [path.name for path in out.iterdir()]
    assert f'{len(names)} pictures in' in text and len(names) >= 2
    assert all(f'{method}.png' in entry for entry in names)
    # a picture or a sentence for every box
    assert text.count(f'{method} of ') == 4
    assert text.count('box 1: ') == 2


def test_cam_tool_says_what_it_cannot_draw(call, checkpoints, folder, tmp_path):
    config, checkpoint = checkpoints['retina']
    common = (config, checkpoint, folder, '--out-dir', tmp_path / 'cams', '--device', 'cpu')
    text = call('cam', *common, '--score-thr', '1.5', status=1)
    assert text.count('no box 0: 0 detections with a score of 1.5 or more (') == 2
    assert '0 pictures in' in text
    text = call('cam', *common, '--class', 'b', '--score-thr', '1.5', status=1)
    assert text.count('strongest b, not detected: hires-cam of neck[') == 2
