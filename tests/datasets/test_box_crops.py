"""Objects cut out of their images."""

import json

import cv2
import numpy as np
import pytest

from mmdet_contrast.datasets import BoxCrops

PIPELINE = [
    dict(type='mmdet.LoadImageFromNDArray'),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_shape', 'gt_label')),
]


@pytest.fixture
def make(tmp_path):
    picture = np.arange(30 * 40 * 3, dtype=np.uint32).reshape(30, 40, 3) % 251
    cv2.imwrite(str(tmp_path / 'a.png'), picture.astype(np.uint8))

    def build(boxes, wrap=lambda dataset: dataset, **kwargs):
        data = dict(
            images=[dict(id=7, file_name='a.png', width=40, height=30)],
            categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
            annotations=[
                dict(
                    id=i,
                    image_id=7,
                    category_id=1 + i % 2,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=int(i >= 3),
                )
                for i, box in enumerate(boxes)
            ],
        )
        (tmp_path / 'a.json').write_text(json.dumps(data))
        dataset = dict(
            type='mmdet.CocoDataset',
            data_root=f'{tmp_path}/',
            ann_file='a.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=('cat', 'dog')),
            filter_cfg=dict(filter_empty_gt=False),
        )
        return BoxCrops(dataset=wrap(dataset), pipeline=PIPELINE, **kwargs), picture

    return build


BOXES = [[2, 3, 10, 12], [0, 0, 40, 30], [35.5, 20.2, 4.5, 9.8], [5, 5, 9, 9]]


def test_a_sample_is_the_pixels_of_its_box(make):
    crops, picture = make(BOXES)
    # the crowd is left out
    assert len(crops) == 3 and crops.metainfo['classes'] == ('cat', 'dog')
    expected = [picture[3:15, 2:12], picture, picture[20:30, 35:40]]
    for index, (item, pixels) in enumerate(zip(crops, expected)):
        np.testing.assert_array_equal(item['inputs'].permute(1, 2, 0).numpy(), pixels)
        assert item['data_samples'].gt_label == index % 2
        assert item['data_samples'].img_shape == pixels.shape[:2]


def test_context_is_added_and_clipped(make):
    crops, picture = make(BOXES[:1], context=0.5)
    np.testing.assert_array_equal(crops[0]['inputs'].permute(1, 2, 0).numpy(), picture[0:21, 0:17])


def repeated(dataset):
    return dict(type='RepeatDataset', times=2, dataset=dataset)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda dataset: dict(type='mmdet.ConcatDataset', datasets=[dataset, dataset]),
        lambda dataset: dict(type='mmdet.ConcatDataset', datasets=[repeated(dataset)]),
        # it has to have a pipeline, which is not run
        lambda dataset: dict(
            type='mmdet.MultiImageMixDataset', dataset=repeated(dataset), pipeline=[]
        ),
    ],
)
def test_wrapped_data_sets_are_cut_as_often_as_they_are_listed(make, wrap):
    crops, picture = make(BOXES[:2], wrap=wrap)
    assert [item['data_samples'].gt_label for item in crops] == [0, 1, 0, 1]
    assert crops.metainfo['classes'] == ('cat', 'dog')
    np.testing.assert_array_equal(crops[2]['inputs'].permute(1, 2, 0).numpy(), picture[3:15, 2:12])


def test_concatenated_data_sets_have_one_list_of_classes(make):
    def joined(dataset, **metainfo):
        both = [dict(source='a', **dataset['metainfo']), dict(source='b', **dataset['metainfo'])]
        both[1].update(metainfo)
        parts = [dict(dataset, metainfo=own) for own in both]
        return dict(type='mmdet.ConcatDataset', datasets=parts)

    # what else differs does not matter
    crops, _ = make(BOXES[:1], wrap=joined)
    assert crops.metainfo['classes'] == ('cat', 'dog')
    with pytest.raises(ValueError, match=r"'dog'\], \['dog', 'cat'\]\], expected one list"):
        make(BOXES, wrap=lambda dataset: joined(dataset, classes=('dog', 'cat')))


def test_no_box_is_refused(make):
    with pytest.raises(ValueError, match='1 images without a box'):
        make([])
