"""Embeddings of boxes and of images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.structures import InstanceData

from mmdet_contrast.models.contrast.sample_embeddings import (
    embed_regions,
    embed_samples,
    infer_strides,
)
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.picture_extent import tell_padding

SHAPE = (64, 96)
STRIDES = (8, 16, 32)


def pyramid(channels=(4, 4, 4)):
    return [torch.randn(2, c, SHAPE[0] // s, SHAPE[1] // s) for c, s in zip(channels, STRIDES)]


ROIS = torch.tensor(
    [[0, 4.0, 4, 30, 40], [1, 10, 20, 90, 60], [1, 0, 0, 96, 64], [0, 50, 10, 53, 12]]
)


@pytest.mark.parametrize('level', [0, 2, -1])
def test_a_level_is_roi_align(level):
    feats = pyramid((4, 5, 6))
    expected = roi_align(feats[level], ROIS, (1, 1), 1 / STRIDES[level], 8, 'avg', True)
    ours = embed_regions(feats, ROIS, SHAPE, level)
    torch.testing.assert_close(ours, expected.flatten(1))


@pytest.mark.parametrize('level', [3, -4, 'all', None])
def test_a_level_that_is_not_there_is_refused(level):
    image = DetDataSample(metainfo=dict(img_shape=SHAPE, gt_label=1))
    for samples in ([sample([[4.0, 4, 30, 40]], [2])], [image]):
        with pytest.raises(LaunchError, match='an index of the 3 feature maps expected'):
            embed_samples(pyramid(), samples, SHAPE, level)


def test_the_level_of_a_box_goes_by_its_size():
    feats = pyramid()
    ours = embed_regions(feats, ROIS, SHAPE, 'scale')
    # roots of areas 30.6, 56.6, 78.4 and 2.4 against 32, 64 and 128
    for row, level in enumerate((0, 1, 1, 0)):
        expected = embed_regions(feats, ROIS[row : row + 1], SHAPE, level)[0]
        torch.testing.assert_close(ours[row], expected)


def sample(boxes, labels, **meta):
    x = DetDataSample(metainfo=dict(img_shape=SHAPE, **meta))
    x.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4).float(), labels=torch.tensor(labels).long()
    )
    return x


def test_boxes_keep_their_order_and_labels():
    feats = pyramid()
    boxes = [[4.0, 4, 30, 40], [50.0, 10, 53, 12]]
    samples = [sample(boxes, [2, 1]), sample([[10.0, 20, 90, 60]], [0])]
    vectors, labels = embed_samples(feats, samples, SHAPE, level=1)
    assert labels.tolist() == [2, 1, 0]
    torch.testing.assert_close(vectors, embed_regions(feats, ROIS[[0, 3, 1]], SHAPE, 1))


def test_no_box_is_no_embedding():
    vectors, labels = embed_samples(pyramid(), [sample([], []), sample([], [])], SHAPE, 'scale')
    assert vectors.shape == (0, 4) and labels.shape == (0,)


def test_images_are_averaged_without_their_padding():
    feats = pyramid()
    samples = [DetDataSample(metainfo=dict(img_shape=s, gt_label=1)) for s in (SHAPE, (33, 40))]
    vectors, labels = embed_samples(feats, samples, SHAPE, level=0)
    assert labels.tolist() == [1, 1]
    torch.testing.assert_close(vectors[0], feats[0][0].mean(dim=(1, 2)))
    torch.testing.assert_close(vectors[1], feats[0][1, :, :5, :5].mean(dim=(1, 2)))
    last = embed_samples(feats, samples, SHAPE, level='scale')[0]
    torch.testing.assert_close(last[0], feats[2][0].mean(dim=(1, 2)))


def test_the_padding_of_a_pipeline_is_left_out():
    register_all_modules()
    picture = np.random.RandomState(0).randint(0, 255, (64, 128, 3), np.uint8)
    load = dict(type='mmdet.LoadImageFromNDArray')
    resize = dict(type='mmdet.Resize', scale=(96, 96), keep_ratio=True)
    pad = dict(type='mmdet.Pad', size=(96, 96), pad_val=dict(img=(114, 114, 114)))
    keys = ('img_shape', 'gt_label')
    pack = dict(type='mmdet.PackDetInputs', meta_keys=keys)
    vectors = []
    for steps in ([load, resize, pack], [load, resize, pad, pack]):
        data = Compose(tell_padding(steps))(dict(img=picture, gt_label=2))
        inputs = data['inputs'][None].float()
        feats = [F.avg_pool2d(inputs, 8), F.avg_pool2d(inputs, 16)]
        shape = inputs.shape[-2:]
        vectors.append(embed_samples(feats, [data['data_samples']], shape, level=1)[0])
    assert shape == (96, 96)
    torch.testing.assert_close(*vectors)


@pytest.mark.parametrize(
    'shape, sizes, expected',
    [
        ((64, 96), [(8, 12), (4, 6), (2, 3)], [8, 16, 32]),
        # a detector's P3 to P7, sizes rounded up, and 1 x 1 twice
        ((64, 64), [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)], [8, 16, 32, 64, 128]),
        ((256, 160), [(32, 20), (16, 10), (8, 5), (4, 3), (2, 2)], [8, 16, 32, 64, 128]),
        # patches
        ((224, 224), [(16, 16)], [14]),
    ],
)
def test_strides_follow_from_the_sizes(shape, sizes, expected):
    assert infer_strides([torch.zeros(1, 1, *size) for size in sizes], shape) == expected
