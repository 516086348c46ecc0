"""Pictures of training samples."""

from copy import deepcopy

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet_contrast.visualization.canvas import GREY, palette
from mmdet_contrast.visualization.view_pairs import draw_sample, save_view_pairs

CLASSES = ['striped_disc', 'checkered_square', 'dotted_triangle']


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


def item(boxes, labels, views=2, ignored=(), **fields):
    """A sample of a black image of 640 x 640, as `PackContrastiveInputs` packs it."""
    fields = {name: torch.tensor(values) for name, values in fields.items()}
    data = DetDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.tensor(labels).long(), **fields
        ),
        ignored_instances=InstanceData(bboxes=torch.tensor(ignored).reshape(-1, 4)),
    )
    shape = (views, 3, 640, 640) if views > 1 else (3, 640, 640)
    return dict(inputs=torch.zeros(shape, dtype=torch.uint8), data_samples=data)


def sides(picture):
    """The pictures below the titles."""
    return picture[32:, :640], picture[32:, 648:]


BOX = [100.0, 100, 300, 300]


def test_each_side_gets_the_box_in_the_colour_of_its_class():
    left, right = sides(draw_sample(item([BOX], [1]), ['a', 'b']))
    first, second = palette(2)
    for side in (left, right):
        assert count(side, second) > 100 and count(side, first) == 0
        # the left side of the box
        assert (side[200, 99:101] == second).all()


def test_left_out_boxes_are_dashed_and_grey():
    solid, dashed = (
        sides(draw_sample(item([BOX], [0], view_valid=[flag]), ['a']))[0] for flag in (True, False)
    )
    assert count(solid, GREY) == 0 and count(dashed, palette(1)[0]) == 0
    grey = (dashed[110:290, 100] == np.array(GREY)).all(-1)
    assert 0.2 < grey.mean() < 0.9  # gaps


def test_moved_boxes_are_drawn_where_the_view_has_them():
    sample = item([BOX], [0], view_bboxes=[[400.0, 100, 600, 300]])
    left, right = sides(draw_sample(sample, ['a']))
    colour = palette(1)[0]
    assert count(left[:, :320], colour) > 0 and count(left[:, 320:], colour) == 0
    assert count(right[:, :320], colour) == 0 and count(right[:, 320:], colour) > 0


def test_ignored_boxes_appear_in_the_original_only():
    left, right = sides(draw_sample(item([], [], ignored=BOX), ['a']))
    assert count(left, GREY) > 0 and count(right, GREY) == 0


def test_an_image_without_a_view():
    sample = item([BOX], [1], views=1)
    picture = draw_sample(sample, CLASSES)
    assert picture.shape == (672, 640, 3) and count(picture, palette(3)[1]) > 100
    left, right = sides(draw_sample(sample, CLASSES, clean=True))
    assert left.max() == 0 and count(right, palette(3)[1]) > 100


def tiny_config(root, *view):
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(data_preprocessor=dict(type='DetDataPreprocessor')),
            train_dataloader=dict(
                batch_size=2,
                dataset=dict(
                    type='CocoDataset',
                    data_root=str(root),
                    ann_file='annotations/instances_train.json',
                    data_prefix=dict(img='train/'),
                    metainfo=dict(classes=CLASSES),
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='LoadAnnotations', with_bbox=True),
                        *view,
                        dict(type='PackContrastiveInputs' if view else 'PackDetInputs'),
                    ],
                ),
            ),
        )
    )


def test_plain_config_in_the_colours_of_the_files(tiny_shapes, tmp_path):
    cfg = tiny_config(tiny_shapes)
    paths = save_view_pairs(cfg, str(tmp_path), num=3, clean=True)
    pictures = [cv2.imread(path)[32:] for path in paths]
    assert [picture.shape for picture in pictures] == [(672, 2 * 672 + 8, 3)] * 3
    first = cv2.imread(str(sorted((tiny_shapes / 'train').iterdir())[0]))
    assert np.array_equal(pictures[0][::7, :672:7], first)


def test_parts_that_differ_in_their_colours(tiny_shapes, tmp_path):
    """MMEngine then gives a list of two metainfos."""
    cfg = tiny_config(tiny_shapes)
    first, second = deepcopy(cfg.train_dataloader.dataset), cfg.train_dataloader.dataset
    second.metainfo = dict(second.get('metainfo') or {}, palette=[(0, 0, 0)] * 3)
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[first, second])
    assert len(save_view_pairs(cfg, str(tmp_path), num=2)) == 2


def test_views_are_those_of_the_pipeline(tiny_shapes, tmp_path):
    """A bank that has been filled shows other objects than the zoom does."""
    same = dict(type='ContrastiveView', fill='same_class', bank=dict(min_size=8))
    pictures = []
    for view in (same, dict(type='ContrastiveView')):
        cfg = tiny_config(tiny_shapes, view)
        pictures.append(cv2.imread(save_view_pairs(cfg, str(tmp_path), num=1, clean=True)[0])[32:])
    assert all(picture.shape == (672, 4 * 672 + 3 * 8, 3) for picture in pictures)
    original, view = pictures[0][:, :672], pictures[0][:, 680:1352]
    assert (original != view).any() and np.array_equal(original, pictures[1][:, :672])
    assert (view != pictures[1][:, 680:1352]).any()


def test_branches_are_drawn_side_by_side(tiny_shapes, tmp_path):
    branch = [
        dict(type='RandomResizedCrop', scale=48, area_range=(0.2, 1.0)),
        dict(type='PackDetInputs', meta_keys=('img_path', 'img_shape')),
    ]
    cfg = tiny_config(tiny_shapes)
    cfg.train_dataloader.dataset = dict(
        type='ImageFolderDataset',
        data_root=str(tiny_shapes / 'train'),
        pipeline=[
            dict(type='LoadUnlabelledImage'),
            dict(type='MultiBranch', branch_field=['one', 'two'], one=branch, two=branch),
        ],
    )
    picture = cv2.imread(save_view_pairs(cfg, str(tmp_path), num=1)[0])
    assert picture.shape == (32 + 672, 2 * 672 + 8, 3)
    assert picture[32:, :672].std() > 1 and (picture[32:, :672] != picture[32:, 680:]).any()


def test_absent_branches_are_left_out(tiny_shapes, tmp_path):
    """A labelled and an unlabelled sample, as in MMDetection's semi_coco_detection.py."""
    fields = ['sup', 'unsup_teacher', 'unsup_student']
    pack = [dict(type='PackDetInputs', meta_keys=('img_path', 'img_shape'))]
    load, read = [dict(type='LoadImageFromFile')], [dict(type='LoadAnnotations', with_bbox=True)]
    branches = dict(unsup_teacher=pack, unsup_student=[dict(type='RandomFlip', prob=1.0), *pack])
    pipelines = [
        [*load, *read, dict(type='MultiBranch', branch_field=fields, sup=pack)],
        [
            *load,
            dict(type='LoadEmptyAnnotations'),
            dict(type='MultiBranch', branch_field=fields, **branches),
        ],
    ]
    cfg = tiny_config(tiny_shapes)
    parts = [
        dict(cfg.train_dataloader.dataset, pipeline=pipeline, indices=[0]) for pipeline in pipelines
    ]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    paths = save_view_pairs(cfg, str(tmp_path), num=2)
    stem = sorted((tiny_shapes / 'train').iterdir())[0].stem
    assert paths == [str(tmp_path / f'{number:03d}_{stem}.png') for number in range(2)]
    labelled, unlabelled = (cv2.imread(path)[32:, :, ::-1] for path in paths)
    assert labelled.shape == (672, 672, 3)
    assert any(count(labelled, colour) for colour in palette(len(CLASSES)))
    assert unlabelled.shape == (672, 2 * 672 + 8, 3)
    assert (unlabelled[:, :672] == unlabelled[:, 680:][:, ::-1]).all()
