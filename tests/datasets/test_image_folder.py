"""Images of a folder, and of one folder for each class."""

import os

import cv2
import numpy as np
import pytest

from mmdet_contrast.datasets import ImageFolderDataset, LabelledImageFolder


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((5, 6, 3), np.uint8))


@pytest.fixture
def folder(tmp_path):
    for name in ('z.png', 'a.jpg', 'b/deep/c.bmp'):
        write(tmp_path / name)
    os.rename(tmp_path / 'a.jpg', tmp_path / 'a.JPG')
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / '.hidden.png').write_text('no image')
    for name in ('.thumbnails/x.png', 'b/.ipynb_checkpoints/deep/x.jpg'):
        write(tmp_path / name)
    return tmp_path


def test_finds_every_image_below_in_the_order_of_the_paths(folder):
    dataset = ImageFolderDataset(data_root=str(folder), pipeline=[])
    names = [os.path.relpath(dataset[i]['img_path'], folder) for i in range(len(dataset))]
    assert names == ['a.JPG', os.path.join('b', 'deep', 'c.bmp'), 'z.png']
    assert [dataset[i]['img_id'] for i in range(3)] == [0, 1, 2]


def test_refuses_folders_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        ImageFolderDataset(data_root=str(tmp_path / 'nowhere'))
    write(tmp_path / '.x' / 'y.png')
    with pytest.raises(ValueError, match='has no image .*hidden folders aside'):
        ImageFolderDataset(data_root=str(tmp_path))


@pytest.fixture
def classes(tmp_path):
    for name in ('b/1.png', 'b/deep/2.png', 'a/3.png'):
        write(tmp_path / name)
    return tmp_path


def labels(dataset):
    return {
        dataset.get_data_info(i)['img_path'][-5:]: dataset.get_data_info(i)['gt_label']
        for i in range(len(dataset))
    }


def test_classes_are_the_folders_in_order(classes):
    dataset = LabelledImageFolder(data_root=str(classes), pipeline=[])
    assert dataset.metainfo['classes'] == ('a', 'b')
    assert labels(dataset) == {'1.png': 1, '2.png': 1, '3.png': 0}


def test_hidden_folders_are_no_classes(classes):
    for name in ('.thumbnails/1.png', 'a/.ipynb_checkpoints/4.png'):
        write(classes / name)
    dataset = LabelledImageFolder(data_root=str(classes), pipeline=[])
    assert dataset.metainfo['classes'] == ('a', 'b')
    assert labels(dataset) == {'1.png': 1, '2.png': 1, '3.png': 0}


def test_classes_of_the_config_give_the_order(classes):
    meta = dict(classes=('b', 'empty', 'a'))
    dataset = LabelledImageFolder(data_root=str(classes), pipeline=[], metainfo=meta)
    assert dataset.metainfo['classes'] == ('b', 'empty', 'a')
    assert labels(dataset) == {'1.png': 0, '2.png': 0, '3.png': 2}


def test_a_pipeline_keeps_the_label(classes):
    dataset = LabelledImageFolder(
        data_root=str(classes),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmdet.PackDetInputs', meta_keys=('img_shape', 'gt_label')),
        ],
    )
    assert [x['data_samples'].gt_label for x in dataset] == [0, 1, 1]


def test_images_of_no_class_are_refused(classes):
    given = dict(data_root=str(classes), pipeline=[])
    with pytest.raises(ValueError, match=r"images in \['b'\], expected .* the classes \['a'\]"):
        LabelledImageFolder(metainfo=dict(classes=('a',)), **given)
    write(classes / 'loose.png')
    with pytest.raises(ValueError, match=r"images in \['\.'\], expected .* \['a', 'b'\]"):
        LabelledImageFolder(**given)
