"""Images of a folder."""

import os

import mmcv
import numpy as np
import pytest

from mmdet_contrast.datasets import ImageFolderDataset


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'b' / 'deep').mkdir(parents=True)
    for name in ('z.png', 'a.jpg', 'b/deep/c.bmp'):
        mmcv.imwrite(np.zeros((4, 5, 3), np.uint8), str(tmp_path / name))
    os.rename(tmp_path / 'a.jpg', tmp_path / 'a.JPG')
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / '.hidden.png').write_text('no image')
    for name in ('.thumbnails/x.png', 'b/.ipynb_checkpoints/deep/x.jpg'):
        mmcv.imwrite(np.zeros((4, 5, 3), np.uint8), str(tmp_path / name))
    return tmp_path


def test_finds_every_image_below_in_the_order_of_the_paths(folder):
    dataset = ImageFolderDataset(data_root=str(folder), pipeline=[])
    names = [os.path.relpath(dataset[i]['img_path'], folder) for i in range(len(dataset))]
    assert names == ['a.JPG', os.path.join('b', 'deep', 'c.bmp'), 'z.png']
    assert [dataset[i]['img_id'] for i in range(3)] == [0, 1, 2]


def test_a_hidden_data_root_is_searched(folder):
    hidden = folder / 'b' / '.ipynb_checkpoints'
    dataset = ImageFolderDataset(data_root=str(hidden), pipeline=[])
    assert [dataset[0]['img_path'], len(dataset)] == [str(hidden / 'deep' / 'x.jpg'), 1]
    with pytest.raises(ValueError, match='not in hidden folders'):
        (folder / 'c' / '.x').mkdir(parents=True)
        mmcv.imwrite(np.zeros((4, 5, 3), np.uint8), str(folder / 'c' / '.x' / 'y.png'))
        ImageFolderDataset(data_root=str(folder / 'c'))


def test_takes_a_subset(folder):
    dataset = ImageFolderDataset(data_root=str(folder), pipeline=[], indices=1)
    assert len(dataset) == 1


def test_refuses_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.*does not exist.*set data_root'):
        ImageFolderDataset(data_root=str(tmp_path / 'nowhere'))


def test_refuses_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=r'no image is in folder.*\.jpg.*set data_root'):
        ImageFolderDataset(data_root=str(tmp_path))


def test_refuses_annotations(folder):
    with pytest.raises(ValueError, match="use type='CocoDataset'"):
        ImageFolderDataset(data_root=str(folder), ann_file='x.json')
