"""Pictures from a file of predictions: the sheet, and one for each image."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import dump

from mmdet_contrast.visualization import save_detection_pictures, save_detection_sheet
from mmdet_contrast.visualization.detection_picture import STYLES


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


@pytest.fixture
def data(tmp_path):
    images = [dict(id=n, file_name=f'{n}.png', width=32, height=32) for n in (3, 7)]
    for image in images:
        cv2.imwrite(str(tmp_path / image['file_name']), np.zeros((32, 32, 3), np.uint8))
    annotation = dict(id=1, image_id=3, category_id=1, bbox=[4, 4, 8, 8], area=64, iscrowd=0)
    categories = [dict(id=1, name='a')]
    coco = dict(images=images, annotations=[annotation], categories=categories)
    (tmp_path / 'coco.json').write_text(json.dumps(coco))
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='coco.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('a',)),
        test_mode=True,
        pipeline=[],
    )
    return Config(dict(test_dataloader=dict(dataset=dataset)))


def predictions(*ids):
    found = dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), scores=torch.zeros(0))
    return [dict(img_id=n, pred_instances=found) for n in ids]


def test_sheet_of_a_test_set(data, tmp_path):
    dump(predictions(7, 3), str(tmp_path / 'found.pkl'))
    path = save_detection_sheet(data, str(tmp_path / 'found.pkl'), str(tmp_path / 'o' / 's.png'))
    sheet = cv2.imread(path)[..., ::-1]
    assert sheet.shape[1] == 2 * (640 + 8)
    # Image 3 comes first, with the object that was missed; below the pictures are the legends.
    missed = STYLES['missed'].colour
    assert count(sheet[:640, :640], missed) > 0
    assert count(sheet[:640, 648:], missed) == 0


def test_a_picture_for_each_image(data, tmp_path):
    found = predictions(7, 3)
    found[1]['pred_instances'] = dict(
        bboxes=torch.tensor([[4.0, 4, 12, 12]]), labels=torch.tensor([0]), scores=torch.ones(1)
    )
    dump(found, str(tmp_path / 'found.pkl'))
    paths = save_detection_pictures(data, str(tmp_path / 'found.pkl'), str(tmp_path / 'o'))
    assert paths == [str(tmp_path / 'o' / '3.png'), str(tmp_path / 'o' / '7.png')]
    first, second = (cv2.imread(path)[..., ::-1] for path in paths)
    correct = STYLES['correct'].colour
    assert count(first[:640], correct) > 0 and count(second[:640], correct) == 0
    (path,) = save_detection_pictures(
        data, str(tmp_path / 'found.pkl'), str(tmp_path / 'one'), num=1, min_panel=32
    )
    assert cv2.imread(path).shape[0] < 200


def test_images_of_several_folders_keep_them(data, tmp_path):
    coco = json.loads((tmp_path / 'coco.json').read_text())
    for image, folder in zip(coco['images'], 'ab'):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / 'same.png'), np.zeros((32, 32, 3), np.uint8))
        image['file_name'] = f'{folder}/same.png'
    (tmp_path / 'coco.json').write_text(json.dumps(coco))
    dump(predictions(7, 3), str(tmp_path / 'found.pkl'))
    paths = save_detection_pictures(data, str(tmp_path / 'found.pkl'), str(tmp_path / 'o'))
    assert paths == [str(tmp_path / 'o' / folder / 'same.png') for folder in 'ab']


def test_a_damaged_image_is_named(data, tmp_path):
    (tmp_path / '3.png').write_bytes(b'no image')
    dump(predictions(7, 3), str(tmp_path / 'found.pkl'))
    with pytest.raises(ValueError, match='3.png.* is damaged'):
        save_detection_pictures(data, str(tmp_path / 'found.pkl'), str(tmp_path / 'o'))


def test_predictions_of_another_set_are_refused(data, tmp_path):
    dump(predictions(3), str(tmp_path / 'found.pkl'))
    with pytest.raises(ValueError, match='no result for image 7'):
        save_detection_sheet(data, str(tmp_path / 'found.pkl'), str(tmp_path / 's.png'))
    with pytest.raises(FileNotFoundError, match="predictions file '.*gone.pkl' does not exist"):
        save_detection_sheet(data, str(tmp_path / 'gone.pkl'), str(tmp_path / 's.png'))


@pytest.mark.parametrize('content', [[1, 2], {'a': 1}, [dict(img_id=3)], b'text', b''])
def test_files_of_something_else_are_refused(data, tmp_path, content):
    path = tmp_path / 'found.pkl'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        dump(content, str(path))
    with pytest.raises(ValueError, match='found.pkl. is not a file of predictions'):
        save_detection_sheet(data, str(path), str(tmp_path / 's.png'))
