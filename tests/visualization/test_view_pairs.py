"""Pictures of training samples."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmdet_contrast.visualization.canvas import GREY, palette
from mmdet_contrast.visualization.view_pairs import draw_view_pair, save_view_pairs

CLASSES = ['striped_disc', 'checkered_square', 'dotted_triangle']


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


@pytest.fixture
def pair():
    return np.zeros((2, 100, 100, 3), np.uint8)


def test_each_side_gets_the_box_in_the_colour_of_its_class(pair):
    picture = draw_view_pair(pair, np.array([[20.0, 20, 60, 60]]), [1], ['a', 'b'], min_side=100)
    first, second = palette(2)
    assert picture.shape[0] == 128 and pair.max() == 0
    middle = picture.shape[1] // 2
    assert count(picture[:, :middle], second) > 100 and count(picture[:, middle:], second) > 100
    assert count(picture, first) == 0
    # under the header the left side of the box runs from y = 20 to y = 60
    assert (picture[28 + 45, 19:21] == second).all()


def test_left_out_boxes_are_dashed_and_grey(pair):
    boxes = np.array([[10.0, 10, 90, 90]])
    solid = draw_view_pair(pair, boxes, [0], ['a'], [True], min_side=100)
    dashed = draw_view_pair(pair, boxes, [0], ['a'], [False], min_side=100)
    # below the header, whose smoothed text is grey here and there
    assert count(solid[28:], GREY) == 0 and count(dashed, palette(1)[0]) == 0
    column = dashed[28 + 40 : 28 + 88, 10]
    grey = (column == np.array(GREY)).all(-1)
    assert 0.2 < grey.mean() < 0.9  # gaps


def test_moved_boxes_are_drawn_where_the_view_has_them():
    pair = np.zeros((2, 480, 480, 3), np.uint8)
    boxes, moved = np.array([[5.0, 200, 105, 400]]), np.array([[375.0, 200, 475, 400]])
    picture = draw_view_pair(pair, boxes, [0], ['a'], view_bboxes=moved)
    colour = palette(1)[0]
    left, right = picture[28:, :480], picture[28:, 488:]
    assert count(left[:, :240], colour) > 0 and count(left[:, 240:], colour) == 0
    assert count(right[:, :240], colour) == 0 and count(right[:, 240:], colour) > 0


def test_ignored_boxes_appear_in_the_original_only():
    pair, ignored = np.zeros((2, 480, 480, 3), np.uint8), np.array([[10.0, 10, 90, 90]])
    picture = draw_view_pair(pair, np.zeros((0, 4)), [], ['a'], ignored_bboxes=ignored)[28:]
    assert count(picture[:, :480], GREY) > 0 and count(picture[:, 488:], GREY) == 0


def test_an_image_without_a_view():
    image, box = np.zeros((1, 480, 480, 3), np.uint8), np.array([[20.0, 20, 60, 60]])
    picture = draw_view_pair(image, box, [1], CLASSES)
    assert picture.shape == (508, 480, 3) and count(picture, palette(3)[1]) > 100
    clean = draw_view_pair(image, box, [1], CLASSES, clean=True)
    assert clean[28:, :480].max() == 0 and count(clean[:, 488:], palette(3)[1]) > 100


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
    pictures = [cv2.imread(path)[28:] for path in paths]
    assert [picture.shape for picture in pictures] == [(480, 2 * 480 + 8, 3)] * 3
    first = cv2.imread(str(sorted((tiny_shapes / 'train').iterdir())[0]))
    assert np.array_equal(pictures[0][::5, :480:5], first)


def test_views_are_those_of_the_pipeline(tiny_shapes, tmp_path):
    """A bank that has been filled shows other objects than the zoom does."""
    same = dict(type='ContrastiveView', fill='same_class', bank=dict(min_size=8))
    pictures = []
    for view in (same, dict(type='ContrastiveView')):
        cfg = tiny_config(tiny_shapes, view)
        pictures.append(cv2.imread(save_view_pairs(cfg, str(tmp_path), num=1, clean=True)[0])[28:])
    assert all(picture.shape == (480, 4 * 480 + 3 * 8, 3) for picture in pictures)
    original, view = pictures[0][:, :480], pictures[0][:, 488:968]
    assert (original != view).any() and np.array_equal(original, pictures[1][:, :480])
    assert (view != pictures[1][:, 488:968]).any()


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
    picture = cv2.imread(save_view_pairs(cfg, str(tmp_path), num=1, min_side=96)[0])
    assert picture.shape == (28 + 96, 2 * 96 + 8, 3)
    assert picture[28:, :96].std() > 1 and (picture[28:, :96] != picture[28:, 104:]).any()


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
    labelled, unlabelled = (cv2.imread(path)[28:, :, ::-1] for path in paths)
    assert labelled.shape == (480, 480, 3)
    assert any(count(labelled, colour) for colour in palette(len(CLASSES)))
    assert unlabelled.shape == (480, 2 * 480 + 8, 3)
    assert (unlabelled[:, :480] == unlabelled[:, 488:][:, ::-1]).all()
