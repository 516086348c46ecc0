"""Data sets to embed: where boxes are, wrappers, samples, messages."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path
from mmdet_contrast.evaluation.labelled_samples import (
    arrange_pipeline,
    labelled_samples,
)


@pytest.fixture
def cfg(tiny_shapes):
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path('retina_shapes.py'))
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{tiny_shapes}/'
    for step in cfg.test_pipeline:
        if 'scale' in step:
            step.scale = (48, 48)
    return cfg


def test_boxes_are_in_pixels_of_the_resized_image(cfg, tiny_shapes):
    samples = labelled_samples(cfg.train_dataloader.dataset, cfg.test_pipeline)
    annotations = json.loads((tiny_shapes / 'annotations' / 'instances_train.json').read_text())
    assert len(samples.dataset) == 12
    assert samples.classes == ('striped_disc', 'checkered_square', 'dotted_triangle')
    # crowds take no part
    objects = [x for x in annotations['annotations'] if not x['iscrowd']]
    seen = 0
    for item in samples.dataset:
        sample = item['data_samples']
        own = [x['bbox'] for x in objects if x['image_id'] == sample.img_id]
        assert len(sample.gt_instances) == len(own)
        for box, (x, y, w, h) in zip(sample.gt_instances.bboxes.tensor.tolist(), own):
            assert box == pytest.approx([x / 2, y / 2, (x + w) / 2, (y + h) / 2], abs=1e-4)
            seen += 1
    assert seen == len(objects) > 12


def test_wrappers_are_taken_off_and_sets_joined(cfg):
    dataset = cfg.train_dataloader.dataset
    wrapped = dict(
        type='ConcatDataset',
        datasets=[
            dict(type='RepeatDataset', times=5, dataset=dataset),
            dict(type='MultiImageMixDataset', dataset=dataset, pipeline=[dict(type='Mosaic')]),
        ],
    )
    samples = labelled_samples(wrapped, cfg.test_pipeline)
    assert len(samples.dataset) == 24


def test_samples_are_spread_evenly(cfg):
    samples = labelled_samples(cfg.train_dataloader.dataset, cfg.test_pipeline, max_samples=3)
    assert len(samples.dataset) == 3
    assert samples.dataset.indices == [0, 6, 11]


def test_the_config_is_not_changed(cfg):
    before = cfg.pretty_text
    labelled_samples(cfg.train_dataloader.dataset, cfg.test_pipeline)
    assert cfg.pretty_text == before


def test_annotations_come_after_the_image():
    pipeline = [
        dict(type='mmdet.LoadImageFromFile'),
        dict(type='mmdet.Resize', scale=(8, 8)),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='mmdet.PackDetInputs', meta_keys=('img_id',)),
    ]
    names = [step['type'].split('.')[-1] for step in arrange_pipeline(pipeline)]
    assert names == ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackDetInputs']
    whole = arrange_pipeline(pipeline, whole_images=True)
    assert len(whole) == 3
    assert {'img_id', 'img_shape', 'gt_label'} <= set(whole[-1]['meta_keys'])
    assert pipeline[-1]['meta_keys'] == ('img_id',)


def test_loaders_of_ones_own_are_moved_and_stay_alone():
    own = dict(type='LoadMyAnnotations', with_bbox=True)
    pipeline = [dict(type='ReadTiff'), dict(type='Resize'), own, dict(type='PackDetInputs')]
    arranged = [step['type'] for step in arrange_pipeline(pipeline)]
    assert arranged == ['ReadTiff', 'LoadMyAnnotations', 'Resize', 'PackDetInputs']
    pipeline[1] = dict(type='LoadAnnotations', with_bbox=True)
    arranged = [step['type'].split('.')[-1] for step in arrange_pipeline(pipeline)]
    assert arranged == ['ReadTiff', 'LoadAnnotations', 'LoadMyAnnotations', 'PackDetInputs']


def test_no_image_is_filtered_out_within_crops(cfg):
    dataset = dict(cfg.train_dataloader.dataset, filter_cfg=dict(min_size=10**6))
    pipeline = [dict(type='LoadImageFromNDArray'), dict(type='PackDetInputs')]
    crops = dict(type='BoxCrops', dataset=dataset, pipeline=pipeline)
    assert len(labelled_samples(crops).dataset) > 12


def test_voc_data_with_the_filter_of_its_stock_config(cfg, tmp_path):
    (tmp_path / 'Annotations').mkdir()
    (tmp_path / 'JPEGImages').mkdir()
    (tmp_path / 'train.txt').write_text('one\n')
    box = ''.join(f'<{key}>{value}</{key}>' for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'),
                                                                  (5, 5, 20, 20)))  # fmt: skip
    size = '<size><width>60</width><height>40</height></size>'
    (tmp_path / 'Annotations' / 'one.xml').write_text(
        f'<a>{size}<object><name>cat</name><difficult>0</difficult><bndbox>{box}</bndbox>'
        '</object></a>'
    )
    cv2.imwrite(str(tmp_path / 'JPEGImages' / 'one.jpg'), np.zeros((40, 60, 3), np.uint8))
    dataset = dict(
        type='VOCDataset',
        data_root=str(tmp_path),
        ann_file='train.txt',
        data_prefix=dict(sub_data_root=''),
        filter_cfg=dict(filter_empty_gt=True, min_size=32, bbox_min_size=32),
    )
    samples = labelled_samples(dataset, cfg.test_pipeline)
    assert len(samples.dataset[0]['data_samples'].gt_instances) == 1


@pytest.mark.parametrize('names', [[], ['LoadImageFromFile', 'PackContrastiveInputs']])
def test_pipelines_that_do_not_fit(cfg, names):
    with pytest.raises(ValueError, match='give the data set the test_pipeline'):
        labelled_samples(cfg.train_dataloader.dataset, [dict(type=name) for name in names])


def test_only_sets_without_a_pipeline_take_the_default(cfg):
    dataset = cfg.train_dataloader.dataset
    plain = Config(dict(dataset, pipeline=None))
    own = Config(dict(dataset, pipeline=[dict(type='LoadImageFromFile'), dataset.pipeline[-1]]))
    wrapped = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[own, plain])
    )
    samples = labelled_samples(wrapped, default_pipeline=cfg.test_pipeline)
    lengths = [len(part.pipeline.transforms) for part in samples.dataset.datasets]
    # LoadAnnotations was put into the first
    assert lengths == [3, 4]


def test_classes_that_differ(cfg):
    other = Config(dict(cfg.train_dataloader.dataset, metainfo=dict(classes=('striped_disc',))))
    both = dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset, other])
    with pytest.raises(ValueError, match='set one metainfo='):
        labelled_samples(both, cfg.test_pipeline)
