"""Heat maps of the images of a folder, and what becomes of the caller meanwhile."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmdet_contrast.visualization import CAM_METHODS, CamOptions, save_cams

sys.path.insert(0, str(Path(__file__).parent))
from cam_toys import colour_detector, reading_files, tiny_transformer  # noqa: E402

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


@pytest.mark.parametrize('method', CAM_METHODS)
@pytest.mark.parametrize('enabled', [True, False])
def test_gradients_of_the_caller_are_left_as_they_are(images, tmp_path, method, enabled):
    detector = reading_files(colour_detector(), PIPELINE)
    options = CamOptions(modules=['backbone'], method=method, min_side=96)
    with torch.set_grad_enabled(enabled):
        within = []
        for saved in save_cams(detector, images, str(tmp_path / 'cams'), options):
            assert saved.out_file is not None, saved.note
            within.append(torch.is_grad_enabled())
        assert within == [enabled] * 2
        assert torch.is_grad_enabled() == enabled
        # a loop that is left early
        left = save_cams(detector, images, str(tmp_path / 'cams'), options)
        next(left)
        left.close()
        assert torch.is_grad_enabled() == enabled


def test_transformers_have_eigen_cam_alone(images, tmp_path):
    detector = reading_files(tiny_transformer(), PIPELINE)
    options = CamOptions(score_thr=0.0)
    with pytest.raises(ValueError, match="DETR has no dense head .* 'eigen-cam'"):
        list(save_cams(detector, images, str(tmp_path / 'cams'), options))
    options = options._replace(method='eigen-cam', min_side=96)
    saved = list(save_cams(detector, images, str(tmp_path / 'cams'), options))
    assert [Path(entry.out_file).name for entry in saved] == ['a.eigen-cam.png', 'b.eigen-cam.png']
