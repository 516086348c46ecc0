"""Images in a folder for each class."""

import cv2
import numpy as np
import pytest

from mmdet_contrast.datasets import LabelledImageFolder


@pytest.fixture
def folder(tmp_path):
    for name in ('b/1.png', 'b/deep/2.png', 'a/3.png'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((5, 6, 3), np.uint8))
    return tmp_path


def labels(dataset):
    return {
        dataset.get_data_info(i)['img_path'][-5:]: dataset.get_data_info(i)['gt_label']
        for i in range(len(dataset))
    }


def test_classes_are_the_folders_in_order(folder):
    dataset = LabelledImageFolder(data_root=str(folder), pipeline=[])
    assert dataset.metainfo['classes'] == ('a', 'b')
    assert labels(dataset) == {'1.png': 1, '2.png': 1, '3.png': 0}


def test_hidden_folders_are_no_classes(folder):
    for name in ('.thumbnails/1.png', 'a/.ipynb_checkpoints/4.png'):
        (folder / name).parent.mkdir()
        cv2.imwrite(str(folder / name), np.zeros((5, 6, 3), np.uint8))
    dataset = LabelledImageFolder(data_root=str(folder), pipeline=[])
    assert dataset.metainfo['classes'] == ('a', 'b')
    assert labels(dataset) == {'1.png': 1, '2.png': 1, '3.png': 0}


def test_classes_of_the_config_give_the_order(folder):
    meta = dict(classes=('b', 'empty', 'a'))
    dataset = LabelledImageFolder(data_root=str(folder), pipeline=[], metainfo=meta)
    assert dataset.metainfo['classes'] == ('b', 'empty', 'a')
    assert labels(dataset) == {'1.png': 0, '2.png': 0, '3.png': 2}


def test_a_pipeline_keeps_the_label(folder):
    dataset = LabelledImageFolder(
        data_root=str(folder),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmdet.PackDetInputs', meta_keys=('img_shape', 'gt_label')),
        ],
    )
    assert [x['data_samples'].gt_label for x in dataset] == [0, 1, 1]


def test_bad_folders(folder, tmp_path):
    with pytest.raises(ValueError, match=r"folders \['b'\], which are none of the classes"):
        LabelledImageFolder(data_root=str(folder), pipeline=[], metainfo=dict(classes=('a',)))
    cv2.imwrite(str(folder / 'loose.png'), np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(ValueError, match="1 images lie in .*'loose.png' is one"):
        LabelledImageFolder(data_root=str(folder), pipeline=[])
    with pytest.raises(FileNotFoundError, match='does not exist'):
        LabelledImageFolder(data_root=str(tmp_path / 'absent'), pipeline=[])
