import numpy as np
import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes, get_box_tensor
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData, PixelData

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


@pytest.mark.parametrize('canvas', [None, dict(max_images=1)])
def test_a_batch_may_be_given_again(canvas):
    data = make_data(sizes=((64, 64),), views=(True,))
    moved = torch.tensor([[40.0, 2, 60, 12], [10, 30, 26, 46]])
    data['data_samples'][0].gt_instances.view_bboxes = HorizontalBoxes(moved)
    preprocessor = ContrastiveDataPreprocessor(**NORM, canvas=canvas)
    (_, first), (_, again) = (preprocessor(data, True)['data_samples'] for _ in range(2))
    assert torch.equal(
        get_box_tensor(first.gt_instances.bboxes), get_box_tensor(again.gt_instances.bboxes)
    )
    assert torch.equal(data['data_samples'][0].gt_instances.view_bboxes.tensor, moved)


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


def canvas_preprocessor(canvas=None, **options):
    return ContrastiveDataPreprocessor(**NORM, canvas=canvas or {}, **options)


def test_canvas_follows_the_originals():
    data = make_data(sizes=((40, 60), (48, 36)))
    whole = ContrastiveDataPreprocessor(**NORM, pad_size_divisor=32)(
        make_data(sizes=((40, 60), (48, 36))), True
    )
    out = canvas_preprocessor(pad_size_divisor=32)(data, True)
    assert out['inputs'].shape == (3, 3, 64, 64)
    assert torch.equal(out['inputs'][:2], whole['inputs'][:2])
    samples = out['data_samples']
    assert [s.view for s in samples] == [0, 0, 1]
    assert samples[2].canvas and 'view_of' not in samples[2].metainfo
    assert samples[2].batch_input_shape == samples[2].pad_shape == (64, 64)
    # the second box of each image is not valid
    instances = samples[2].gt_instances
    assert sorted(instances.source_image.tolist()) == [0, 1]
    assert instances.source_box.tolist() == [0, 0]
    for box, image in zip(instances.bboxes.int().tolist(), instances.source_image.tolist()):
        (x1, y1, x2, y2), (u1, v1, u2, v2) = box, (1, 2, 11, 12)
        expected = whole['inputs'][2 + image, :, v1:v2, u1:u2]
        torch.testing.assert_close(out['inputs'][2, :, y1:y2, x1:x2], expected)
    # blank is what padding is, to the nearest whole pixel value
    assert out['inputs'][2, :, 16:].abs().max() < 0.5 / 56 + 1e-6


def test_blank_canvas_is_padding_in_every_colour_order():
    norm = dict(mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 8.0], pad_value=1.5)
    for convert in (False, True):
        preprocessor = ContrastiveDataPreprocessor(**norm, bgr_to_rgb=convert, canvas={})
        out = preprocessor(make_data(sizes=((40, 60),), views=(True,)), True)
        torch.testing.assert_close(out['inputs'][1, :, 24:], torch.full((3, 16, 60), 1.5))
    raw = ContrastiveDataPreprocessor(pad_value=7, canvas={})
    out = raw(make_data(sizes=((40, 60),), views=(True,)), True)
    assert (out['inputs'][1, :, 24:] == 7).all()


def test_canvas_with_and_without_views_and_moved_boxes():
    data = make_data(sizes=((40, 60), (40, 60)), views=(False, True))
    moved = torch.tensor([[40.0, 2, 50, 12], [10, 4, 26, 16]])
    data['data_samples'][1].gt_instances.view_bboxes = HorizontalBoxes(moved)
    view = data['inputs'][1][1]
    out = ContrastiveDataPreprocessor(canvas={})(data, True)
    assert len(out['inputs']) == 3
    instances = out['data_samples'][2].gt_instances
    assert instances.source_image.tolist() == [1]
    x1, y1, x2, y2 = instances.bboxes[0].int().tolist()
    assert torch.equal(out['inputs'][2, :, y1:y2, x1:x2], view[:, 2:12, 40:50].float())
    assert all('view_bboxes' not in s.gt_instances for s in out['data_samples'])


def test_canvas_of_stacked_inputs():
    data = make_data(sizes=((40, 60), (40, 60)))
    data['inputs'] = torch.stack(data['inputs'])
    assert canvas_preprocessor()(data, True)['inputs'].shape == (3, 3, 40, 60)


def test_no_valid_box_makes_no_canvas():
    data = make_data(sizes=((40, 60),), views=(True,))
    data['data_samples'][0].gt_instances.view_valid[:] = False
    out = canvas_preprocessor()(data, True)
    assert len(out['inputs']) == 1 and out['data_samples'][0].canvas_left_out == 0


def test_batch_augments_scale_canvas_boxes():
    augment = dict(type='BatchSyncRandomResize', random_size_range=(128, 128), interval=1)
    preprocessor = canvas_preprocessor(batch_augments=[augment])
    MessageHub.get_current_instance().update_info('iter', 0)
    for expected in (1.0, 2.0):
        out = preprocessor(make_data(sizes=((64, 64), (64, 64))), True)
        boxes = out['data_samples'][2].gt_instances.bboxes
        sides = boxes[:, 2:] - boxes[:, :2]
        assert torch.equal(sides, torch.full((2, 2), 10 * expected))
    assert out['inputs'].shape == (3, 3, 128, 128)
    assert out['data_samples'][2].gt_instances.source_box.tolist() == [0, 0]


def test_canvas_beside_masks_and_segmentation_maps():
    augments = [
        dict(type='BatchFixedSizePad', size=(96, 96), pad_mask=True, pad_seg=True),
        dict(type='BatchResize', scale=(64, 64)),
    ]
    for augment in augments:
        data = make_data(sizes=((40, 60), (48, 36)), masks=True)
        for sample, size in zip(data['data_samples'], ((40, 60), (48, 36))):
            sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, *size, dtype=torch.uint8))
        preprocessor = canvas_preprocessor(
            pad_mask=True, pad_seg=True, pad_size_divisor=32, batch_augments=[augment]
        )
        samples = preprocessor(data, True)['data_samples']
        assert len(samples[0].gt_instances.masks) == 2
        assert len(samples[2].gt_instances) == 2


def test_unknown_canvas_options():
    with pytest.raises(ValueError, match='share=3'):
        canvas_preprocessor(dict(share=3))
