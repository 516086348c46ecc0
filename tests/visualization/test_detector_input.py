"""A detector from its files, and what it is refused for."""

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config

from mmdet_contrast import config_path
from mmdet_contrast.utils.config import load_config
from mmdet_contrast.utils.model import build_detector
from mmdet_contrast.visualization.detector_input import (
    UnusablePicture,
    load_detector,
    prepare_picture,
    read_images,
)

NAMES = ['striped_disc', 'checkered_square', 'dotted_triangle']


@pytest.fixture(scope='module')
def config():
    return config_path('retina_shapes.py')


@pytest.fixture(scope='module')
def weights(config):
    return build_detector(load_config(config)).state_dict()


def save(content, folder):
    torch.save(content, str(folder / 'weights.pth'))
    return str(folder / 'weights.pth')


def test_names_are_those_of_the_checkpoint_or_of_the_test_data(config, weights, tmp_path, recwarn):
    plain = load_detector(config, save(dict(state_dict=weights), tmp_path), 'cpu')
    assert plain.dataset_meta['classes'] == NAMES and not plain.training
    assert not any('COCO' in str(warning.message) for warning in recwarn)
    meta = dict(dataset_meta=dict(CLASSES=('a', 'b', 'c')))
    named = load_detector(config, save(dict(state_dict=weights, meta=meta), tmp_path), 'cpu')
    assert named.dataset_meta['classes'] == ['a', 'b', 'c']
    assert all(torch.equal(value, weights[key]) for key, value in named.state_dict().items())


def test_the_student_of_a_distillation(config, weights, tmp_path):
    cfg = Config.fromfile(config)
    cfg.model = dict(type='DistillationDetector', student=cfg.model, teacher=config)
    detector = load_detector(cfg, save(dict(state_dict=weights), tmp_path), 'cpu')
    assert type(detector).__name__ == 'RetinaNet'
    assert torch.equal(detector.state_dict()['neck.fpn_convs.0.conv.weight'],
                       weights['neck.fpn_convs.0.conv.weight'])  # fmt: skip


def test_images_that_cannot_be_used_are_named(config, weights, tiny_shapes, tmp_path):
    detector = load_detector(config, save(dict(state_dict=weights), tmp_path), 'cpu')
    folder = tmp_path / 'images'
    (folder / 'folder.jpg').mkdir(parents=True)
    content = sorted((tiny_shapes / 'test').iterdir())[0].read_bytes()
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(folder / 'a.PNG'), whole)
    (folder / 'b.jpg').write_bytes(content[: len(content) * 3 // 4])
    assert cv2.imread(str(folder / 'b.jpg')) is not None
    for name, shape in (('c.png', (2, 4000)), ('d.png', (4000, 2)), ('e.png', (1, 1))):
        cv2.imwrite(str(folder / name), np.zeros((*shape, 3), np.uint8))
    (folder / 'f.png').symlink_to('nowhere.png')
    for name in ('._a.jpg', '.hidden.png', 'notes.txt'):
        (folder / name).touch()
    first, cut, wide, tall, dot, gone = read_images(detector, str(folder))
    assert np.array_equal(first.picture, whole[..., ::-1])
    assert dot.sample.img_shape == (128, 128)
    for entry in (cut, wide, tall, gone):
        assert not entry.readable and entry.out_file is None
    assert 'the test pipeline cannot prepare 4000 x 2 pixels: ' in wide.note
    assert 'the test pipeline cannot prepare 2 x 4000 pixels: ' in tall.note
    # what is named itself is taken
    (hidden,) = read_images(detector, str(folder / '.hidden.png'))
    assert hidden.image == str(folder / '.hidden.png') and not hidden.readable
    for path in (folder / 'folder.jpg', 'nowhere'):
        with pytest.raises(FileNotFoundError, match='is neither an image nor a folder that has'):
            next(read_images(detector, str(path)))


def test_errors_of_a_picture_alone_are_told_as_its_own():
    def fail(error):
        def step(results):
            raise error

        return Compose([step])

    with pytest.raises(UnusablePicture, match='prepare 3 x 2 pixels: ValueError: height and width'):
        prepare_picture(fail(ValueError('height and width must be > 0')), {}, (3, 2))
    # a step that lacks a key fails for all pictures
    with pytest.raises(KeyError):
        prepare_picture(fail(KeyError('img')), {}, (3, 2))
