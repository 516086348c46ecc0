"""The sheet of a file of predictions."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import dump

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.visualization.detection_painter import STYLES
from mmdet_contrast.visualization.detection_sheet import save_detection_sheet


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


@pytest.fixture
def data(tmp_path):
    images = [dict(id=n, file_name=f'{n}.png', width=32, height=32) for n in (3, 7)]
    for image in images:
        cv2.imwrite(str(tmp_path / image['file_name']), np.zeros((32, 32, 3), np.uint8))
    # without 'area' and 'iscrowd', as a run completes it
    annotation = dict(id=1, image_id=3, category_id=1, bbox=[4, 4, 8, 8])
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
    found = predictions(7, 3)
    out = str(tmp_path / 'o' / 's.png')
    for bboxes, right in ((torch.zeros(0, 4), 0), (torch.tensor([[4.0, 4, 12, 12]]), 1)):
        labels = torch.zeros(len(bboxes)).long()
        found[1]['pred_instances'] = dict(bboxes=bboxes, labels=labels, scores=labels + 0.9)
        dump(found, str(tmp_path / 'found.pkl'))
        path = save_detection_sheet(data, str(tmp_path / 'found.pkl'), out)
        sheet = cv2.imread(path)[..., ::-1]
        assert sheet.shape[1] == 2 * 640 + 8
        # Image 3 comes first, with the object; below the pictures are the legends.
        correct, purple = (STYLES[kind].colour for kind in ('correct', 'missed'))
        assert (count(sheet[:640, :640], correct) > 0) == right
        assert count(sheet[:640, :640], purple) > 0
        assert count(sheet[:640, 648:], correct) == count(sheet[:640, 648:], purple) == 0


def test_predictions_of_another_set_are_refused(data, tmp_path):
    dump(predictions(3), str(tmp_path / 'found.pkl'))
    with pytest.raises(LaunchError, match='no result for image 7'):
        save_detection_sheet(data, str(tmp_path / 'found.pkl'), str(tmp_path / 's.png'))


def test_tool(data, tmp_path, call):
    data.dump(str(tmp_path / 'c.py'))
    dump(predictions(7, 3), str(tmp_path / 'found.pkl'))
    out = tmp_path / 's.png'
    options = ['--cfg-options', 'test_dataloader.dataset.indices=1']
    text = call(
        'draw_detections', tmp_path / 'c.py', tmp_path / 'found.pkl', '--out', out, *options
    )
    assert f'detections in {out}\n' in text
    assert cv2.imread(str(out)).shape[1] == 640
    with pytest.raises(SystemExit, match='draw_detections.py: error: .*no.pkl'):
        call('draw_detections', tmp_path / 'c.py', 'no.pkl', '--out', out)
