"""Pictures from a file of predictions: the sheet, and one for each image."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import dump

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.visualization.detection_painter import STYLES
from mmdet_contrast.visualization.detection_sheet import (
    save_detection_pictures,
    save_detection_sheet,
)


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
        data, str(tmp_path / 'found.pkl'), str(tmp_path / 'one'), num=1, min_side=32
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


def test_predictions_of_another_set_are_refused(data, tmp_path):
    dump(predictions(3), str(tmp_path / 'found.pkl'))
    with pytest.raises(LaunchError, match='no result for image 7'):
        save_detection_sheet(data, str(tmp_path / 'found.pkl'), str(tmp_path / 's.png'))


def test_tool(data, tmp_path, call):
    data.dump(str(tmp_path / 'c.py'))
    dump(predictions(7, 3), str(tmp_path / 'found.pkl'))
    arguments = [tmp_path / 'c.py', tmp_path / 'found.pkl', '--min-side', '32']
    out, folder = tmp_path / 's.png', tmp_path / 'd'
    options = ['--cfg-options', 'test_dataloader.dataset.indices=1']
    text = call('draw_detections', *arguments, '--out', out, '--out-dir', folder, *options)
    assert f'detections in {out}\n' in text and f'1 pictures in {folder}\n' in text
    # a legend of two lines, and nothing beside it
    assert np.array_equal(cv2.imread(str(out))[:-8, :-8], cv2.imread(str(folder / '3.png')))
    call('draw_detections', *arguments, status=2)
    with pytest.raises(SystemExit, match='draw_detections.py: error: .*no.pkl'):
        call('draw_detections', tmp_path / 'c.py', 'no.pkl', '--out', out)
