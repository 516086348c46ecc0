import numpy as np
import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from mmdet_contrast.models.data_preprocessors import ContrastiveDataPreprocessor

NORM = dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0], bgr_to_rgb=True)


def make_sample(height, width, masks=False):
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), scale_factor=(1.0, 1.0)))
    boxes = torch.tensor([[1.0, 2, 11, 12], [4, 4, 20, 16]])
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes),
        labels=torch.tensor([0, 1]),
        view_valid=torch.tensor([True, False]),
    )
    if masks:
        sample.gt_instances.masks = BitmapMasks(
            np.ones((2, height, width), np.uint8), height, width
        )
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.zeros(0, 4)), labels=torch.zeros(0, dtype=torch.long)
    )
    return sample


def make_data(sizes=((20, 30), (24, 18)), views=(True, True), **kwargs):
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randint(0, 255, ((2, 3, *size) if view else (3, *size)), generator=generator).byte()
        for size, view in zip(sizes, views)
    ]
    return dict(inputs=inputs, data_samples=[make_sample(*size, **kwargs) for size in sizes])


def test_originals_then_views_as_if_each_were_an_image():
    data = make_data()
    flat = [x[0] for x in data['inputs']] + [x[1] for x in data['inputs']]
    samples = [make_sample(*size) for size in ((20, 30), (24, 18)) * 2]
    expected = DetDataPreprocessor(**NORM, pad_size_divisor=32)(
        dict(inputs=flat, data_samples=samples), True
    )
    out = ContrastiveDataPreprocessor(**NORM, pad_size_divisor=32)(data, True)
    assert out['inputs'].shape == (4, 3, 32, 32)
    assert torch.equal(out['inputs'], expected['inputs'])
    assert [s.view for s in out['data_samples']] == [0, 0, 1, 1]
    assert [s.view_of for s in out['data_samples'][2:]] == [0, 1]
    for ours, theirs in zip(out['data_samples'], expected['data_samples']):
        assert torch.equal(ours.gt_instances.bboxes, theirs.gt_instances.bboxes)
        assert ours.batch_input_shape == theirs.batch_input_shape == (32, 32)
        assert ours.pad_shape == theirs.pad_shape


def test_stacked_inputs():
    data = make_data(sizes=((20, 30), (20, 30)))
    listed = ContrastiveDataPreprocessor(**NORM)(make_data(sizes=((20, 30), (20, 30))), True)
    data['inputs'] = torch.stack(data['inputs'])
    stacked = ContrastiveDataPreprocessor(**NORM)(data, True)
    assert torch.equal(listed['inputs'], stacked['inputs'])


def test_batch_with_and_without_views():
    out = ContrastiveDataPreprocessor(**NORM)(make_data(views=(False, True)), True)
    assert len(out['inputs']) == 3
    assert [s.view for s in out['data_samples']] == [0, 0, 1]
    assert out['data_samples'][2].view_of == 1


def test_without_views_it_is_the_stock_one():
    out = ContrastiveDataPreprocessor(**NORM)(make_data(views=(False, False)), False)
    expected = DetDataPreprocessor(**NORM)(make_data(views=(False, False)), False)
    assert torch.equal(out['inputs'], expected['inputs'])
    for ours, theirs in zip(out['data_samples'], expected['data_samples']):
        assert ours.metainfo == theirs.metainfo


def test_view_boxes_become_the_boxes_of_the_view():
    data = make_data(sizes=((20, 30),), views=(True,))
    moved = torch.tensor([[19.0, 2, 29, 12], [10, 4, 26, 16]])
    data['data_samples'][0].gt_instances.view_bboxes = HorizontalBoxes(moved)
    ignored = InstanceData(bboxes=torch.tensor([[0.0, 0, 8, 8]]), labels=torch.tensor([0]))
    ignored.view_bboxes = torch.tensor([[22.0, 0, 30, 8]])
    data['data_samples'][0].ignored_instances = ignored
    first, second = ContrastiveDataPreprocessor(**NORM)(data, True)['data_samples']
    assert torch.equal(second.gt_instances.bboxes, moved)
    assert first.gt_instances.bboxes[0].tolist() == [1, 2, 11, 12]
    assert first.ignored_instances.bboxes.tolist() == [[0, 0, 8, 8]]
    assert second.ignored_instances.bboxes.tolist() == [[22, 0, 30, 8]]
    assert 'view_bboxes' not in first.gt_instances and 'view_bboxes' not in second.gt_instances


def test_batch_augments_scale_every_box_once():
    augment = dict(type='BatchSyncRandomResize', random_size_range=(64, 64), interval=1)
    preprocessor = ContrastiveDataPreprocessor(**NORM, batch_augments=[augment])
    MessageHub.get_current_instance().update_info('iter', 0)
    for expected in (1.0, 2.0):
        out = preprocessor(make_data(sizes=((32, 32), (32, 32))), True)
        for sample in out['data_samples']:
            assert sample.gt_instances.bboxes[0].tolist() == [
                expected * v for v in (1.0, 2.0, 11.0, 12.0)
            ]
    assert out['inputs'].shape == (4, 3, 64, 64)


def test_masks_are_padded_in_both_views():
    preprocessor = ContrastiveDataPreprocessor(**NORM, pad_mask=True, pad_size_divisor=32)
    out = preprocessor(make_data(masks=True), True)
    assert [s.gt_instances.masks.masks.shape for s in out['data_samples']] == [(2, 32, 32)] * 4


def test_wrong_number_of_views():
    data = make_data(sizes=((20, 30),), views=(True,))
    data['inputs'][0] = torch.zeros(3, 3, 20, 30)
    with pytest.raises(ValueError, match=r'\(2, C, H, W\) expected'):
        ContrastiveDataPreprocessor(**NORM)(data, True)
