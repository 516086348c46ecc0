"""The visualizer, by itself and under MMDetection's own hook in a Runner."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData

from mmdet_contrast.visualization import DetectionPainter, draw_detections
from mmdet_contrast.visualization.detection_picture import STYLES

SIDE = 64
BOX = [8.0, 16, 40, 48]


def sample(gt=True, found=True, **options):
    data = DetDataSample()
    if gt:
        data.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor([BOX])), labels=torch.tensor([1])
        )
        data.ignored_instances = InstanceData(
            bboxes=torch.tensor([[50.0, 50, 60, 60]]), labels=torch.tensor([0])
        )
    if found:
        data.pred_instances = InstanceData(
            bboxes=torch.tensor([BOX, [1.0, 1, 9, 9]]).half(),
            labels=torch.tensor([1, 0]),
            scores=torch.tensor([0.75, 0.25]).half(),
        )
    return data


@pytest.fixture
def painter():
    painter = VISUALIZERS.build(dict(type='DetectionPainter', name='a painter'))
    painter.dataset_meta = dict(classes=('cat', 'dog'))
    return painter


IMAGE = np.zeros((SIDE, SIDE, 3), np.uint8)


def test_paints_what_draw_detections_draws(painter, tmp_path):
    painter.add_datasample('x', IMAGE, sample(), out_file=str(tmp_path / 'x.png'))
    expected = draw_detections(
        IMAGE,
        np.array([BOX]),
        [1],
        np.array([BOX, [1.0, 1, 9, 9]]),
        [1, 0],
        [0.75, 0.25],
        ('cat', 'dog'),
        ignored_bboxes=np.array([[50.0, 50, 60, 60]]),
        ignored_labels=[0],
    )
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'x.png'))[..., ::-1], expected)
    np.testing.assert_array_equal(painter.get_image(), expected)


@pytest.mark.parametrize(
    'options, kind',
    [
        (dict(), 'correct'),
        (dict(draw_gt=False), 'detection'),
        (dict(draw_pred=False), 'ground truth'),
        (dict(pred_score_thr=0.9), 'missed'),
        (dict(data_sample=sample(gt=False)), 'detection'),
        (dict(data_sample=sample(found=False)), 'ground truth'),
    ],
)
def test_what_is_drawn_can_be_chosen(painter, options, kind):
    painter.add_datasample('x', IMAGE, **{'data_sample': sample(), **options})
    colours = painter.get_image()[:640, :640].reshape(-1, 3)
    assert (colours == np.array(STYLES[kind].colour)).all(-1).any()


def test_an_image_alone_stays_as_it_is(painter):
    painter.add_datasample('x', IMAGE + 7)
    np.testing.assert_array_equal(painter.get_image(), IMAGE + 7)


def test_what_it_cannot_do_is_refused(painter):
    data = sample()
    data.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, SIDE, SIDE))
    with pytest.raises(ValueError, match='holds gt_sem_seg, but DetectionPainter draws boxes only'):
        painter.add_datasample('x', IMAGE, data)
    with pytest.raises(ValueError, match=r'iou_thr is 1.5, but an IoU threshold lies in \(0, 1\]'):
        DetectionPainter(iou_thr=1.5)


class _FindsOneBox(BaseModel):
    """A detector that always finds the same object."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        for data in data_samples:
            data.pred_instances = InstanceData(
                bboxes=torch.tensor([BOX]), labels=torch.tensor([0]), scores=torch.tensor([0.9])
            )
        return data_samples


def test_the_hook_of_mmdetection_uses_it_in_validation_and_test(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), IMAGE)
    x1, y1, x2, y2 = BOX
    annotation = dict(id=1, image_id=1, category_id=1, bbox=[x1, y1, x2 - x1, y2 - y1], iscrowd=0)
    annotation['area'] = (x2 - x1) * (y2 - y1)
    coco = dict(
        images=[dict(id=1, file_name='a.png', width=SIDE, height=SIDE)],
        annotations=[annotation],
        categories=[dict(id=1, name='cat')],
    )
    (tmp_path / 'coco.json').write_text(json.dumps(coco))
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file='coco.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=('cat',)),
            test_mode=True,
            pipeline=[
                dict(type='LoadImageFromFile'),
                # Half the size: the picture is painted on the original all the same.
                dict(type='Resize', scale=(SIDE // 2, SIDE // 2)),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape')),
            ],
        ),
    )
    evaluator = dict(type='DumpDetResults', out_file_path=str(tmp_path / 'found.pkl'))
    init_default_scope('mmdet')
    runner = Runner(
        _FindsOneBox(),
        str(tmp_path / 'work'),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=evaluator,
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=evaluator,
        default_scope='mmdet',
        default_hooks=dict(
            visualization=dict(
                type='DetVisualizationHook', draw=True, interval=1, test_out_dir='painted'
            )
        ),
        visualizer=dict(
            type='DetectionPainter', name='painter', vis_backends=[dict(type='LocalVisBackend')]
        ),
        experiment_name=tmp_path.name,
        cfg=Config(),
    )
    runner.val()
    runner.test()
    expected = draw_detections(
        IMAGE, np.array([BOX]), [0], np.array([BOX]), [0], [np.float32(0.9)], ('cat',)
    )
    (validated,) = (tmp_path / 'work').glob('*/vis_data/vis_image/val_img_0.png')
    (tested,) = (tmp_path / 'work').glob('*/painted/a.png')
    for path in (validated, tested):
        np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], expected)
