"""Views of images that data set wrappers mix, repeat or join."""

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope

VIEW = [dict(type='ContrastiveView', zoom_range=(2.0, 3.0)), dict(type='PackContrastiveInputs')]
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]


@pytest.fixture
def shapes(tiny_shapes):
    init_default_scope('mmdet')

    def config(*steps):
        return dict(
            type='CocoDataset',
            data_root=str(tiny_shapes),
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=('striped_disc', 'checkered_square', 'dotted_triangle')),
            pipeline=[*LOAD, *steps],
        )

    return config


def check(packed):
    """The view differs in its objects, and in nothing else; boxes that fit are contrasted."""
    image, view = packed['inputs'].int()
    instances = packed['data_samples'].gt_instances
    inside = torch.zeros(image.shape[1:], dtype=torch.bool)
    for box in instances.bboxes.tensor:
        x1, y1, x2, y2 = box.tolist()
        inside[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))] = True
    changed = (image != view).any(dim=0)
    assert changed.any() and not (changed & ~inside).any()
    assert len(instances.view_valid) == len(instances.bboxes) and instances.view_valid.any()


def test_mosaic_of_several_images(shapes):
    mosaic = [
        dict(type='Mosaic', img_scale=(64, 64), pad_val=114.0),
        dict(type='RandomAffine', scaling_ratio_range=(0.8, 1.2), border=(-32, -32)),
        *VIEW,
    ]
    data = DATASETS.build(
        dict(type='MultiImageMixDataset', dataset=shapes(), pipeline=mosaic, max_refetch=15)
    )
    np.random.seed(0)
    for i in range(4):
        check(data[i])


@pytest.mark.parametrize('wrapper', ['RepeatDataset', 'ConcatDataset'])
def test_an_image_that_comes_twice_has_two_views(shapes, wrapper):
    if wrapper == 'RepeatDataset':
        cfg = dict(type=wrapper, dataset=shapes(*VIEW), times=2)
    else:
        cfg = dict(
            type=wrapper, datasets=[shapes(*VIEW), shapes(dict(type='RandomFlip', prob=1.0), *VIEW)]
        )
    data = DATASETS.build(cfg)
    half = len(data) // 2
    first, second = data[3], data[half + 3]
    for packed in (first, second):
        check(packed)
    image, again = first['inputs'], second['inputs']
    if wrapper == 'ConcatDataset':
        again = again.flip(-1)
        assert (first['data_samples'].get('flip'), second['data_samples'].flip) == (None, True)
    assert torch.equal(image[0], again[0])
    if wrapper == 'RepeatDataset':
        assert not torch.equal(image[1], again[1])
