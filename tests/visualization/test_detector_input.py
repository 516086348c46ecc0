"""A detector from its files, and what it is refused for."""

import shutil

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
    list_images,
    load_detector,
    picture_stems,
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


def test_images_that_are_cut_off_are_named(config, weights, tiny_shapes, tmp_path):
    detector = load_detector(config, save(dict(state_dict=weights), tmp_path), 'cpu')
    source = sorted((tiny_shapes / 'test').iterdir())[0]
    whole = tmp_path / 'whole.png'
    shutil.copy(source, tmp_path / source.name)
    cv2.imwrite(str(whole), cv2.imread(str(source)))
    content = source.read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(content[: len(content) * 3 // 4])
    assert cv2.imread(str(tmp_path / 'cut.jpg')) is not None
    first, second = read_images(detector, [str(whole), str(tmp_path / 'cut.jpg')])
    assert first.picture.shape == cv2.imread(str(source)).shape
    assert not second.readable and second.out_file is None


def test_images_that_cannot_be_resized_are_named(config, weights, tmp_path):
    detector = load_detector(config, save(dict(state_dict=weights), tmp_path), 'cpu')
    shapes = {'wide.png': (2, 4000), 'tall.png': (4000, 2), 'dot.png': (1, 1)}
    for name, shape in shapes.items():
        cv2.imwrite(str(tmp_path / name), np.zeros((*shape, 3), np.uint8))
    wide, tall, dot = read_images(detector, [str(tmp_path / name) for name in shapes])
    assert not wide.readable and '4000 x 2 pixels: Resize to 128 x 128 leaves no' in wide.note
    assert not tall.readable and '2 x 4000 pixels: Resize to 128 x 128 leaves no' in tall.note
    assert dot.sample.img_shape == (128, 128)


def test_errors_of_a_picture_alone_are_told_as_its_own():
    def fail(error):
        def step(results):
            raise error

        return Compose([step])

    with pytest.raises(UnusablePicture, match='prepare 3 x 2 pixels: height and width must be'):
        prepare_picture(fail(ValueError('height and width must be > 0')), {}, (3, 2))
    # a step that lacks a key fails for all pictures
    with pytest.raises(KeyError):
        prepare_picture(fail(KeyError('img')), {}, (3, 2))


def test_only_visible_files_of_a_folder(tmp_path):
    for name in ('b.PNG', 'a.jpg', '._a.jpg', '.hidden.png', 'notes.txt'):
        (tmp_path / name).touch()
    (tmp_path / 'folder.jpg').mkdir()
    # it is said that it cannot be read
    (tmp_path / 'c.png').symlink_to('nowhere.png')
    assert list_images(str(tmp_path)) == [str(tmp_path / n) for n in ('a.jpg', 'b.PNG', 'c.png')]
    # what is named itself is taken
    assert list_images(str(tmp_path / '.hidden.png')) == [str(tmp_path / '.hidden.png')]
    with pytest.raises(FileNotFoundError, match='has no image'):
        (tmp_path / 'folder.jpg' / '.a.png').touch()
        list_images(str(tmp_path / 'folder.jpg'))


def test_names_of_pictures():
    assert picture_stems(['d/a.jpg', 'd/b.c.png']) == ['a', 'b.c']
    assert picture_stems(['d/a.jpg', 'd/b.png', 'd/a.png']) == ['a.jpg', 'b.png', 'a.png']
