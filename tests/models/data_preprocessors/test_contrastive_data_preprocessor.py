import numpy as np
import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData, PixelData

from mmdet_contrast.models.data_preprocessors import ContrastiveDataPreprocessor

NORM = dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0], bgr_to_rgb=True)
SIZES = ((20, 30), (24, 18), (23, 31), (64, 40), (7, 5))
BOXES = [[1.0, 2, 11, 12], [4, 4, 20, 16]]


def make_sample(height, width, moved=False):
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(BOXES),
        labels=torch.tensor([0, 1]),
        view_valid=torch.tensor([True, False]),
        masks=BitmapMasks(np.ones((2, height, width), np.uint8), height, width),
    )
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes([[0.0, 0, 8, 8]]), labels=torch.tensor([0])
    )
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, height, width, dtype=torch.uint8))
    if moved:
        for field in ('gt_instances', 'ignored_instances'):
            instances = sample.get(field)
            instances.view_bboxes = HorizontalBoxes(instances.bboxes.tensor + 3)
    return sample


def make_data(sizes=SIZES[:2], views=True, moved=False):
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randint(0, 255, ((2, 3, *size) if views else (3, *size)), generator=generator).byte()
        for size in sizes
    ]
    return dict(inputs=inputs, data_samples=[make_sample(*size, moved=moved) for size in sizes])


def normalised(image, convert=True):
    """An image as the detector sees it."""
    mean, std = (torch.tensor(NORM[k])[:, None, None] for k in ('mean', 'std'))
    return ((image.flip(0) if convert else image).float() - mean) / std


@pytest.mark.parametrize('divisor', [32, 3, 1])
@pytest.mark.parametrize('number', [1, 3, 5])
@pytest.mark.parametrize('moved', [False, True])
def test_pixels_and_boxes_of_every_tile(divisor, number, moved):
    data = make_data(SIZES[:number], moved=moved)
    preprocessor = ContrastiveDataPreprocessor(**NORM, pad_size_divisor=divisor, pad_value=1.5)
    out = preprocessor(data, True)
    samples = out['data_samples']
    height, width = out['inputs'].shape[2:]
    pictures = -(-number // 4)
    assert len(samples) == len(out['inputs']) == number + pictures
    assert [s.view for s in samples] == [0] * number + [1] * pictures
    assert height % divisor == width % divisor == height % 2 == width % 2 == 0
    assert all(s.batch_input_shape == (height, width) for s in samples)
    expected = torch.full((number + pictures, 3, height, width), 1.5)
    boxes, labels = [[] for _ in samples], [[] for _ in samples]
    for i, (original, view) in enumerate(data['inputs']):
        expected[i, :, : original.shape[1], : original.shape[2]] = normalised(original)
        boxes[i], labels[i] = torch.tensor(BOXES), [0, 1]
        place, cell = number + i // 4, i % 4
        top, left = cell // 2 * height // 2, cell % 2 * width // 2
        assert samples[i].view_place == (place, left / width, top / height)
        assert samples[i].view_moved is moved
        tile = torch.full((3, height, width), 1.5)
        tile[:, : view.shape[1], : view.shape[2]] = normalised(view)
        # the mean of 2 x 2 pixels, one by one
        for y in range(height // 2):
            for x in range(width // 2):
                pixels = tile[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                expected[place, :, top + y, left + x] = pixels.mean(dim=(1, 2))
        for box, label in zip(BOXES, (0, 1)):
            corner = [left, top] * 2
            boxes[place].append([(v + 3 * moved) / 2 + c for v, c in zip(box, corner)])
            labels[place].append(label)
    torch.testing.assert_close(out['inputs'], expected, atol=1e-5, rtol=1e-5)
    for sample, places, classes in zip(samples, boxes, labels):
        assert torch.equal(sample.gt_instances.bboxes, torch.as_tensor(places))
        assert sample.gt_instances.labels.tolist() == classes
        assert 'view_bboxes' not in sample.gt_instances
        assert 'view_bboxes' not in sample.ignored_instances
        assert len(sample.ignored_instances) == 1 - sample.view


def test_originals_are_those_of_the_stock_one():
    data = make_data(SIZES[:3])
    options = dict(**NORM, pad_size_divisor=32)
    stock = dict(
        inputs=[x[0] for x in data['inputs']], data_samples=make_data(SIZES[:3])['data_samples']
    )
    out, expected = (
        cls(**options)(batch, True)
        for cls, batch in ((ContrastiveDataPreprocessor, data), (DetDataPreprocessor, stock))
    )
    assert torch.equal(out['inputs'][:3], expected['inputs'])
    for ours, theirs in zip(out['data_samples'][:3], expected['data_samples']):
        assert torch.equal(ours.gt_instances.bboxes, theirs.gt_instances.bboxes)
        assert ours.batch_input_shape == theirs.batch_input_shape
        assert ours.pad_shape == theirs.pad_shape


@pytest.mark.parametrize('training', [False, True])
def test_without_views_it_is_the_stock_one(training):
    data, again = (make_data(views=False) for _ in range(2))
    options = dict(**NORM, pad_size_divisor=32, pad_mask=True)
    out = ContrastiveDataPreprocessor(**options)(data, training)
    expected = DetDataPreprocessor(**options)(again, training)
    assert torch.equal(out['inputs'], expected['inputs'])
    for ours, theirs in zip(out['data_samples'], expected['data_samples']):
        assert ours.metainfo == theirs.metainfo


def test_one_tensor_is_a_list_of_its_rows():
    data = make_data(SIZES[:1] * 2)
    joined = dict(data, inputs=torch.stack(data['inputs']))
    first, second = (ContrastiveDataPreprocessor(**NORM)(x, True)['inputs'] for x in (data, joined))
    assert torch.equal(first, second)


def test_a_batch_may_be_given_again():
    data, preprocessor = make_data(moved=True), ContrastiveDataPreprocessor(**NORM)
    first, again = (preprocessor(data, True) for _ in range(2))
    assert torch.equal(first['inputs'], again['inputs'])
    for ours, theirs in zip(first['data_samples'], again['data_samples']):
        assert torch.equal(ours.gt_instances.bboxes, theirs.gt_instances.bboxes)
    for sample in data['data_samples']:
        assert 'view' not in sample and 'view_bboxes' in sample.gt_instances


def test_batch_augments_scale_every_box_once():
    augment = dict(type='BatchSyncRandomResize', random_size_range=(64, 64), interval=1)
    preprocessor = ContrastiveDataPreprocessor(**NORM, batch_augments=[augment])
    MessageHub.get_current_instance().update_info('iter', 0)
    # the first step has the size of the data still
    for factor in (1.0, 2.0):
        out = preprocessor(make_data(sizes=((32, 32), (32, 32)), moved=True), True)
        first, second, picture = out['data_samples'][:3]
        for sample in (first, second):
            assert torch.equal(sample.gt_instances.bboxes, factor * torch.tensor(BOXES))
        moved = (torch.tensor(BOXES) + 3) / 2
        assert torch.equal(picture.gt_instances.bboxes[:2], factor * moved)
        # where a view is follows from the size that the picture has now
        assert picture.img_shape == (factor * 32, factor * 32)
        assert first.view_place == (2, 0, 0)
    assert out['inputs'].shape[2:] == (64, 64)


@pytest.mark.parametrize('augments', [None, [dict(type='BatchResize', scale=(64, 64))]])
def test_masks_and_segmentation_maps_are_those_of_the_originals(augments):
    preprocessor = ContrastiveDataPreprocessor(
        **NORM, pad_mask=True, pad_seg=True, pad_size_divisor=32, batch_augments=augments
    )
    samples = preprocessor(make_data(sizes=((40, 60), (48, 36))), True)['data_samples']
    for sample in samples[:2]:
        assert sample.gt_instances.masks.masks.shape == (2, 64, 64)
        assert sample.gt_sem_seg.sem_seg.shape == (1, 64, 64)
    assert 'masks' not in samples[2].gt_instances and 'gt_sem_seg' not in samples[2]
