"""What of a detector's input is picture."""

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules

from mmdet_contrast.utils.picture_extent import picture_extent, tell_padding


@pytest.mark.parametrize(
    'meta, expected',
    [
        # Pad in the pipeline
        (dict(img_shape=(96, 96), ori_shape=(64, 128), scale_factor=(0.75, 0.75)), (48, 96)),
        # Pad by the data preprocessor
        (
            dict(
                img_shape=(48, 96),
                ori_shape=(64, 128),
                scale_factor=(0.75, 0.75),
                batch_input_shape=(64, 96),
            ),
            (48, 96),
        ),
        # the factor of the width is first
        (dict(img_shape=(99, 99), ori_shape=(10, 10, 3), scale_factor=[2.0, 3.0]), (30, 20)),
        # 427 x 640 to 640 x 959, as Resize rounds it
        (
            dict(img_shape=(960, 960), ori_shape=(640, 427), scale_factor=(640 / 427, 959 / 640)),
            (959, 640),
        ),
        # a crop after resizing
        (dict(img_shape=(40, 50), ori_shape=(64, 128), scale_factor=(0.75, 0.75)), (40, 50)),
        (dict(img_shape=(40, 50), batch_input_shape=(32, 64)), (32, 50)),
        (dict(img_shape=(40, 50), ori_shape=(4, 5)), (40, 50)),
        (dict(img_shape=(40, 50), scale_factor=(0.5, 0.5)), (40, 50)),
        # a strip that is thinner than a pixel
        (dict(img_shape=(64, 64), ori_shape=(1, 900), scale_factor=(0.07, 0.07)), (1, 63)),
    ],
)
def test_extent(meta, expected):
    meta = dict(meta, pad_size_divisor=None)
    assert picture_extent(DetDataSample(metainfo=meta)) == expected


def test_without_a_known_pad_the_shape_of_the_image_counts():
    meta = dict(img_shape=(64, 64), ori_shape=(40, 40), scale_factor=(0.3, 0.3))
    assert picture_extent(DetDataSample(metainfo=meta)) == (64, 64)
    # a flip moves the padding to the left
    meta.update(flip=True, pad_size_divisor=32)
    assert picture_extent(DetDataSample(metainfo=meta)) == (64, 64)
    assert picture_extent(DetDataSample(metainfo=dict(meta, flip=False))) == (12, 12)


@pytest.mark.parametrize(
    'steps, expected',
    [
        ([], (48, 96)),
        ([dict(type='mmdet.Pad', size=(96, 96))], (48, 96)),
        ([dict(type='mmdet.Pad', size_divisor=64)], (48, 96)),
        ([dict(type='mmdet.Pad', pad_to_square=True)], (48, 96)),
        ([dict(type='mmcv.CenterCrop', crop_size=(32, 32))], (32, 32)),
        (
            [
                dict(type='mmcv.CenterCrop', crop_size=(32, 32)),
                dict(type='mmdet.Resize', scale=(80, 80), keep_ratio=True),
            ],
            (80, 80),
        ),
    ],
)
def test_the_pixels_of_a_pipeline(steps, expected):
    register_all_modules()
    pipeline = [
        dict(type='mmdet.LoadImageFromNDArray'),
        dict(type='mmdet.Resize', scale=(96, 96), keep_ratio=True),
        *steps,
        dict(type='mmdet.PackDetInputs'),
    ]
    data = Compose(tell_padding(pipeline))(
        dict(img=np.full((64, 128, 3), 200, np.uint8), img_id=0, img_path='')
    )
    height, width = picture_extent(data['data_samples'])
    assert (height, width) == expected
    # the picture, and nothing but padding beside it
    assert (data['inputs'][:, :height, :width] == 200).all()
    assert not data['inputs'][:, height:].any() and not data['inputs'][:, :, width:].any()
