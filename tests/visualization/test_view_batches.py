"""Pictures of batches, and of any config's training set."""

import copy

import cv2
import mmengine
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from mmdet_contrast.utils.launch_checks import LaunchError
from mmdet_contrast.visualization import (
    draw_plain_sample,
    draw_view_batch,
    save_view_batches,
    save_view_pairs,
    view_batches,
)
from mmdet_contrast.visualization.canvas import GREY, palette

CLASSES = ['striped_disc', 'checkered_square', 'dotted_triangle']


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


def sample(boxes, labels, valid=None, **metainfo):
    gt = InstanceData(
        bboxes=torch.tensor(boxes).float().reshape(-1, 4), labels=torch.tensor(labels)
    )
    if valid is not None:
        gt.view_valid = torch.tensor(valid)
    return DetDataSample(gt_instances=gt, metainfo=dict(img_shape=(100, 100), **metainfo))


@pytest.fixture
def names(monkeypatch):
    """What is written beside the boxes, and which boxes are solid, panel by panel."""
    panels = []
    original = view_batches.boxes_panel

    def remember(image, boxes, names, inks, solid, *args):
        panels.append((list(names), list(solid)))
        return original(image, boxes, names, inks, solid, *args)

    monkeypatch.setattr(view_batches, 'boxes_panel', remember)
    return panels


def test_views_carry_the_numbers_of_their_originals(names):
    first, second = [[0, 0, 40, 40], [50, 0, 90, 40]], [[0, 0, 50, 5]]
    batch = [
        sample(first, [0, 1], [True, False], view=0),
        sample(second, [2], [False], view=0),
        sample(first, [0, 1], [True, False], view=1, view_of=0),
        sample(second, [2], [False], view=1, view_of=1),
    ]
    images = np.zeros((4, 100, 100, 3), np.uint8)
    picture = draw_view_batch(images, batch, CLASSES, min_size=8, min_panel=100, columns=2)
    assert names == [
        (['0 striped_disc', '1 checkered_square: covered'], [True, False]),
        (['2 dotted_triangle: too small'], [False]),
        (['0', '1'], [True, False]),
        (['2'], [False]),
    ]
    assert picture.shape[0] == 2 * (100 + 28 + 8)
    assert count(picture, palette(3)[0]) > 100 and count(picture, GREY) > 100


def test_canvas_boxes_carry_the_numbers_of_their_sources(names):
    batch = [
        sample([[0, 0, 40, 40], [50, 0, 90, 40]], [0, 1], [True, True], view=0),
        sample([[0, 0, 50, 50]], [2], [True], view=0),
        sample([[0, 0, 20, 20], [30, 0, 60, 30]], [2, 1], view=1, canvas=True),
    ]
    batch[2].gt_instances.source_image = torch.tensor([1, 0])
    batch[2].gt_instances.source_box = torch.tensor([0, 1])
    draw_view_batch(np.zeros((3, 100, 100, 3), np.uint8), batch, CLASSES, min_size=8)
    assert names == [
        (['0 striped_disc: not in a view', '1 checkered_square'], [False, True]),
        (['2 dotted_triangle'], [True]),
        (['2', '1'], [True, True]),
    ]


@pytest.mark.parametrize('own_pairs', [True, False])
def test_images_without_a_view_beside_one_with(own_pairs, names):
    boxes = [[0, 0, 40, 40], [50, 0, 90, 40]]
    batch = [
        sample(boxes, [0, 1], view=0),
        sample(boxes, [0, 1], [True, False], view=0),
        sample(boxes, [0, 1], [True, False], view=1, view_of=1),
    ]
    images = np.zeros((3, 100, 100, 3), np.uint8)
    draw_view_batch(images, batch, CLASSES, min_size=8, own_pairs=own_pairs)
    note = '' if own_pairs else ': not in a view'
    assert names == [
        ([f'0 striped_disc{note}', f'1 checkered_square{note}'], [own_pairs] * 2),
        (['2 striped_disc', '3 checkered_square: covered'], [True, False]),
        (['2', '3'], [True, False]),
    ]


def test_a_batch_without_views_has_no_box_left_out(names):
    batch = [sample([[0, 0, 40, 40]], [0]), sample([], torch.zeros(0).long().tolist())]
    draw_view_batch(np.zeros((2, 100, 100, 3), np.uint8), batch, CLASSES)
    assert names == [(['0 striped_disc'], [True]), ([], [])]


def test_plain_sample():
    image, box = np.zeros((100, 100, 3), np.uint8), np.array([[20.0, 20, 60, 60]])
    picture = draw_plain_sample(image, box, [1], CLASSES, min_panel=100)
    assert picture.shape[0] == 128 and count(picture, palette(3)[1]) > 100
    clean = draw_plain_sample(image, box, [1], CLASSES, clean=True, min_panel=100)
    assert clean[28:, :100].max() == 0 and count(clean[:, 108:], palette(3)[1]) > 100


def tiny_config(root, *view, preprocessor='DetDataPreprocessor', bgr_to_rgb=True):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='RandomFlip', prob=0.5),
        *view,
        dict(type='PackContrastiveInputs' if view else 'PackDetInputs'),
    ]
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(
                data_preprocessor=dict(
                    type=preprocessor,
                    mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375],
                    bgr_to_rgb=bgr_to_rgb,
                    pad_size_divisor=32,
                )
            ),
            train_dataloader=dict(
                batch_size=2,
                dataset=dict(
                    type='CocoDataset',
                    data_root=str(root),
                    ann_file='annotations/instances_train.json',
                    data_prefix=dict(img='train/'),
                    metainfo=dict(classes=CLASSES),
                    pipeline=pipeline,
                ),
            ),
        )
    )


def test_plain_config(tiny_shapes, tmp_path):
    cfg = tiny_config(tiny_shapes)
    paths = save_view_pairs(cfg, str(tmp_path), num=3, min_panel=480)
    assert len(paths) == 3
    assert cv2.imread(paths[0]).shape == (28 + 480, 480, 3)


def test_same_class_config_draws_from_a_bank_that_has_been_filled(tiny_shapes, tmp_path):
    view = dict(type='ContrastiveView', fill='same_class', bank=dict(min_size=8))
    cfg = tiny_config(tiny_shapes, view)
    zoomed = tiny_config(tiny_shapes, dict(type='ContrastiveView'))
    pictures = [
        cv2.imread(save_view_pairs(config, str(tmp_path / name), num=1, min_panel=480)[0])
        for name, config in (('same', cfg), ('zoom', zoomed))
    ]
    assert pictures[0].shape == pictures[1].shape == (28 + 480, 2 * 480 + 8, 3)
    assert (pictures[0][28:, 488:] != pictures[1][28:, 488:]).any()
    clean = save_view_pairs(cfg, str(tmp_path / 'clean'), num=1, min_panel=480, clean=True)
    assert cv2.imread(clean[0]).shape == (28 + 480, 4 * 480 + 3 * 8, 3)


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
def test_batches_are_what_the_model_gets(tiny_shapes, tmp_path, monkeypatch, bgr_to_rgb):
    seen = []
    original = view_batches.draw_view_batch

    def remember(images, *args, **kwargs):
        seen.append((images, kwargs['own_pairs']))
        return original(images, *args, **kwargs)

    monkeypatch.setattr(view_batches, 'draw_view_batch', remember)
    view = dict(type='ContrastiveView')
    cfg = tiny_config(
        tiny_shapes, view, preprocessor='ContrastiveDataPreprocessor', bgr_to_rgb=bgr_to_rgb
    )
    cfg.model.bbox_head = dict(contrast=dict(key_source='view_or_image' if bgr_to_rgb else 'view'))
    paths = save_view_batches(cfg, str(tmp_path), num=3, min_panel=96)
    assert [(len(images), own) for images, own in seen] == [(4, bgr_to_rgb), (2, bgr_to_rgb)]
    assert all(cv2.imread(path).std() > 1 for path in paths) and len(paths) == 2
    assert equals_first_image(tiny_shapes, seen[0][0][0])


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
def test_samples_have_the_colours_of_the_files(tiny_shapes, tmp_path, bgr_to_rgb):
    cfg = tiny_config(tiny_shapes, bgr_to_rgb=bgr_to_rgb)
    (path,) = save_view_pairs(cfg, str(tmp_path), num=1, min_panel=96, clean=True)
    assert equals_first_image(tiny_shapes, cv2.imread(path)[28:, :96, ::-1])


def equals_first_image(root, drawn):
    """Whether RGB pixels are those of the first file, but for the flip and rounding."""
    image = cv2.imread(str(sorted((root / 'train').iterdir())[0]))[..., ::-1]
    return any(np.abs(drawn.astype(int) - side).max() <= 1 for side in (image, image[:, ::-1]))


def test_unusable_configs(tiny_shapes, tmp_path):
    cfg = tiny_config(tiny_shapes)
    cfg.model.pop('data_preprocessor')
    with pytest.raises(ValueError, match='no model.data_preprocessor'):
        save_view_batches(cfg, str(tmp_path))
    cfg.pop('train_dataloader')
    with pytest.raises(ValueError, match='no train_dataloader'):
        save_view_pairs(cfg, str(tmp_path))


def test_unusable_data(tiny_shapes, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    annotations = mmengine.load(tiny_shapes / 'annotations' / 'instances_train.json')
    for image in annotations['images']:
        image['file_name'] = 'broken.png'
    mmengine.dump(annotations, tmp_path / 'broken.json')
    cfg = tiny_config(tiny_shapes, dict(type='ContrastiveView'))
    for change, message in (
        (dict(ann_file=str(tmp_path / 'no.json')), "no.json', which config .* does not exist"),
        (dict(data_prefix=dict(img='no/')), "jpg', which config .* does not exist"),
        (
            dict(ann_file=str(tmp_path / 'broken.json'), data_prefix=dict(img=str(tmp_path))),
            "broken.png' is damaged or not an image",
        ),
        (dict(metainfo=dict(classes=['striped_disk'])), r"classes \['striped_disk'\], which anno"),
        (dict(pipeline=[dict(type='ContrastiveVeiw')]), 'ContrastiveVeiw is not in the'),
    ):
        changed = copy.deepcopy(cfg)
        changed.train_dataloader.dataset.update(change)
        for save in (save_view_pairs, save_view_batches):
            with pytest.raises(LaunchError, match=message):
                save(changed, str(tmp_path / 'out'))
    for change, message in ((dict(num=0), 'num is 0'), (dict(warm_up=-1), 'warm_up is -1')):
        with pytest.raises(ValueError, match=message):
            save_view_pairs(cfg, str(tmp_path / 'out'), **change)


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
    cfg.model.data_preprocessor = dict(
        type='MultiBranchDataPreprocessor', data_preprocessor=cfg.model.data_preprocessor
    )
    picture = cv2.imread(save_view_pairs(cfg, str(tmp_path), num=1, min_panel=96)[0])
    assert picture.shape == (28 + 96, 2 * 96 + 8, 3)
    assert picture[28:, :96].std() > 1 and (picture[28:, :96] != picture[28:, 104:]).any()
    with pytest.raises(ValueError, match='inputs of type dict, not one batch of images'):
        save_view_batches(cfg, str(tmp_path))


def semi_supervised(root):
    """A labelled and an unlabelled sample, as in MMDetection's semi_coco_detection.py."""
    fields = ['sup', 'unsup_teacher', 'unsup_student']
    pack = [dict(type='PackDetInputs', meta_keys=('img_path', 'img_shape'))]
    load, read = [dict(type='LoadImageFromFile')], [dict(type='LoadAnnotations', with_bbox=True)]
    labelled = [dict(type='MultiBranch', branch_field=fields, sup=pack)]
    branches = dict(unsup_teacher=pack, unsup_student=[dict(type='RandomFlip', prob=1.0), *pack])
    unlabelled = [
        dict(type='LoadEmptyAnnotations'),
        dict(type='MultiBranch', branch_field=fields, **branches),
    ]
    cfg = tiny_config(root)
    parts = [
        dict(cfg.train_dataloader.dataset, pipeline=pipeline, indices=[0])
        for pipeline in (load + read + labelled, load + unlabelled)
    ]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    cfg.model.data_preprocessor = dict(
        type='MultiBranchDataPreprocessor', data_preprocessor=cfg.model.data_preprocessor
    )
    return cfg


def test_absent_branches_are_left_out(tiny_shapes, tmp_path):
    cfg = semi_supervised(tiny_shapes)
    paths = save_view_pairs(cfg, str(tmp_path), num=2)
    stem = sorted((tiny_shapes / 'train').iterdir())[0].stem
    assert [path[len(str(tmp_path)) + 1 :] for path in paths] == [
        f'000_{stem}.png',
        f'001_{stem}.png',
    ]
    labelled, unlabelled = map(cv2.imread, paths)
    assert labelled.shape == (28 + 480, 480, 3)
    assert any(count(labelled[28:, :, ::-1], colour) for colour in palette(len(CLASSES)))
    assert unlabelled.shape == (28 + 480, 2 * 480 + 8, 3)
    assert (unlabelled[28:, :480] == unlabelled[28:, 488:][:, ::-1]).all()
    cfg.train_dataloader.batch_size = 1
    with pytest.raises(ValueError, match='inputs of type dict, not one batch of images'):
        save_view_batches(cfg, str(tmp_path))


def test_batch_augmentations_that_count_iterations(tiny_shapes, tmp_path, monkeypatch):
    shapes = []
    original = view_batches.draw_view_batch

    def remember(images, *args, **kwargs):
        shapes.append(images.shape[1:3])
        return original(images, *args, **kwargs)

    monkeypatch.setattr(view_batches, 'draw_view_batch', remember)
    cfg = tiny_config(tiny_shapes)
    resize = dict(type='BatchSyncRandomResize', random_size_range=(64, 64), interval=2)
    cfg.model.data_preprocessor.batch_augments = [resize]
    # runners of other tests may have left theirs
    MessageHub.get_current_instance().pop_info('iter')
    assert len(save_view_batches(cfg, str(tmp_path), num=6, min_panel=96)) == 3
    # the size is drawn after every second batch
    assert shapes == [(96, 96), (96, 96), (64, 64)]


@pytest.mark.parametrize('keys', [('gt_label',), ('img_path', 'gt_label')])
def test_images_with_a_class_and_no_boxes(tiny_shapes, tmp_path, keys):
    cfg = tiny_config(tiny_shapes)
    cfg.train_dataloader.dataset = dict(
        type='BoxCrops',
        dataset=cfg.train_dataloader.dataset,
        pipeline=[
            dict(type='LoadImageFromNDArray'),
            dict(type='Resize', scale=(32, 32), keep_ratio=False),
            dict(type='PackDetInputs', meta_keys=(*keys, 'img_shape')),
        ],
    )
    (path,) = save_view_pairs(cfg, str(tmp_path), num=1)
    assert path.endswith('000_image.png')
    assert cv2.imread(path).shape == (28 + 480, 480, 3)
    (path,) = save_view_batches(cfg, str(tmp_path), num=2)
    assert cv2.imread(path).std() > 1
