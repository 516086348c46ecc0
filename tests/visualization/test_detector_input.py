"""A detector from its files, and what it is refused for."""

import shutil

import cv2
import pytest
import torch
from mmengine.config import Config

from mmdet_contrast import config_path
from mmdet_contrast.utils.config import load_config
from mmdet_contrast.utils.model import build_detector
from mmdet_contrast.visualization.detector_input import (
    list_images,
    load_detector,
    picture_stems,
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


def test_only_visible_files_of_a_folder(tmp_path):
    for name in ('b.PNG', 'a.jpg', '._a.jpg', '.hidden.png', 'notes.txt'):
        (tmp_path / name).touch()
    (tmp_path / 'folder.jpg').mkdir()
    assert list_images(str(tmp_path)) == [str(tmp_path / 'a.jpg'), str(tmp_path / 'b.PNG')]
    # what is named itself is taken
    assert list_images(str(tmp_path / '.hidden.png')) == [str(tmp_path / '.hidden.png')]
    with pytest.raises(FileNotFoundError, match='has no image'):
        (tmp_path / 'folder.jpg' / '.a.png').touch()
        list_images(str(tmp_path / 'folder.jpg'))


def test_names_of_pictures():
    assert picture_stems(['d/a.jpg', 'd/b.c.png']) == ['a', 'b.c']
    assert picture_stems(['d/a.jpg', 'd/b.png', 'd/a.png']) == ['a.jpg', 'b.png', 'a.png']
