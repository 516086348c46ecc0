"""The sheet of ground truth and detections."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import dump

from mmdet_contrast.visualization import draw_detections, save_detection_sheet
from mmdet_contrast.visualization.canvas import palette


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


def test_truth_left_detections_right():
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[10.0, 10, 40, 40], [50, 50, 90, 90]])
    picture = draw_detections(
        image, boxes[:1], [0], boxes, [1, 2], [0.9, 0.1], ['a', 'b', 'c'], min_panel=100
    )
    a, b, c = palette(3)
    left, right = picture[:, :100], picture[:, 108:]
    assert count(left, a) > 0 and count(left, b) == 0
    assert count(right, b) > 0 and count(right, a) == 0
    assert count(right, c) == 0  # below score_thr
    assert image.max() == 0


def test_nothing_found_and_nothing_to_find():
    none = np.zeros((0, 4))
    picture = draw_detections(np.zeros((8, 8, 3), np.uint8), none, [], none, [], [], ['a'])
    assert picture.shape == (28 + 384, 2 * 384 + 8, 3)


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
    assert sheet.shape == (28 + 384 + 8, 2 * (2 * 384 + 8 + 8), 3)
    colour = palette(1)[0]
    assert count(sheet[:, :384], colour) > 0  # image 3 comes first, with its ground truth
    assert count(sheet[:, 384:], colour) == 0


def test_predictions_of_another_set_are_refused(data, tmp_path):
    dump(predictions(3), str(tmp_path / 'found.pkl'))
    with pytest.raises(ValueError, match='no result for image 7'):
        save_detection_sheet(data, str(tmp_path / 'found.pkl'), str(tmp_path / 's.png'))
    with pytest.raises(FileNotFoundError, match="predictions file '.*gone.pkl' does not exist"):
        save_detection_sheet(data, str(tmp_path / 'gone.pkl'), str(tmp_path / 's.png'))
