import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_contrast.models.contrast import RegionContrast
from mmdet_contrast.models.contrast.pairs import (
    collect_own_pairs,
    collect_pairs,
    collect_pairs_or_own,
)

SIZE = (128, 160)


def make_original(count, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat((start, start + 10 + torch.rand(count, 2, generator=generator) * 60), dim=1)
    sample = DetDataSample(metainfo=dict(img_shape=SIZE, view=0))
    labels = torch.randint(3, (count,), generator=generator)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
    return sample


def make_canvas(boxes, labels, images, rows):
    sample = DetDataSample(metainfo=dict(img_shape=SIZE, view=1, canvas=True))
    sample.gt_instances = InstanceData(
        bboxes=torch.as_tensor(boxes).float().reshape(-1, 4),
        labels=torch.as_tensor(labels, dtype=torch.long),
        source_image=torch.as_tensor(images, dtype=torch.long),
        source_box=torch.as_tensor(rows, dtype=torch.long),
    )
    return sample


def make_view(original, position):
    sample = DetDataSample(metainfo=dict(img_shape=SIZE, view=1, view_of=position))
    sample.gt_instances = original.gt_instances.clone()
    return sample


def test_boxes_of_a_canvas_are_paired_with_their_sources():
    originals = [make_original(3, 0), make_original(0, 1), make_original(2, 2)]
    sources = [(2, 1), (0, 2), (0, 0)]
    places = [[0, 0, 9, 9], [20, 0, 40, 9], [50, 50, 70, 80]]
    labels = [int(originals[i].gt_instances.labels[j]) for i, j in sources]
    canvases = [
        make_canvas(places[:2], labels[:2], *zip(*sources[:2])),
        make_canvas(places[2:], labels[2:], *zip(*sources[2:])),
    ]
    pairs = collect_pairs(originals + canvases, torch.device('cpu'))
    expected = []
    for canvas, place, (image, row) in zip((3, 3, 4), places, sources):
        instances = originals[image].gt_instances
        expected.append(
            ([image, *instances.bboxes[row].tolist()], [canvas, *place], int(instances.labels[row]))
        )
    # boxes without a place on a canvas take no part
    assert len(pairs.labels) == 3
    for i, (query, key, label) in enumerate(expected):
        assert pairs.query_rois[i].tolist() == query
        assert pairs.key_rois[i].tolist() == key
        assert pairs.labels[i] == label


def test_canvas_with_everything_in_its_place_is_a_batch_of_views():
    originals = [make_original(4, 0), make_original(3, 1)]
    views = [make_view(s, i) for i, s in enumerate(originals)]
    canvases = []
    for i, sample in enumerate(originals):
        order = torch.randperm(len(sample.gt_instances))
        moved = sample.gt_instances[order]
        images = torch.full_like(order, i)
        canvases.append(make_canvas(moved.bboxes, moved.labels, images, order))
    module = RegionContrast(4, strides=(8, 16), pool_size=3, background='never')
    feats = [torch.randn(4, 4, SIZE[0] // s, SIZE[1] // s) for s in (8, 16)]
    losses, expected = module(feats, originals + canvases), module(feats, originals + views)
    for name, value in expected.items():
        assert value > 0.1
        torch.testing.assert_close(losses[name], value)


def test_views_and_canvases_in_one_batch_and_an_empty_canvas():
    originals = [make_original(2, 0), make_original(1, 1)]
    batch = [*originals, make_view(originals[0], 0), make_canvas([], [], [], [])]
    assert collect_pairs(batch, torch.device('cpu')).query_rois[:, 0].tolist() == [0, 0]
    batch.append(make_canvas([[1, 2, 3, 4]], [0], [1], [0]))
    pairs = collect_pairs(batch, torch.device('cpu'))
    assert pairs.query_rois[:, 0].tolist() == [0, 0, 1]
    assert pairs.key_rois[:, 0].tolist() == [2, 2, 4]


@pytest.mark.parametrize('image, row', [(0, 2), (1, 0), (2, 0), (5, 0), (-1, 0), (0, -1)])
def test_source_that_is_not_there(image, row):
    batch = [make_original(2, 0), make_original(0, 1)]
    batch.append(make_canvas([[0, 0, 8, 8]], [0], [image], [row]))
    with pytest.raises(ValueError, match='which is not there: the originals have'):
        collect_pairs(batch, torch.device('cpu'))


def test_canvas_that_does_not_tell_its_sources():
    canvas = make_canvas([[0, 0, 8, 8]], [0], [0], [0])
    canvas.gt_instances.pop('source_box')
    with pytest.raises(ValueError, match='gt_instances lack source_box'):
        collect_pairs([make_original(1, 0), canvas], torch.device('cpu'))


def test_boxes_paired_with_themselves():
    batch = [make_original(2, 0), make_original(0, 1), make_original(3, 2)]
    pairs = collect_own_pairs(batch, torch.device('cpu'))
    assert pairs.query_rois[:, 0].tolist() == [0, 0, 2, 2, 2]
    boxes = torch.cat([sample.gt_instances.bboxes for sample in batch])
    assert torch.equal(pairs.query_rois[:, 1:], boxes)
    assert torch.equal(pairs.key_rois, pairs.query_rois)
    assert torch.equal(pairs.labels, torch.cat([s.gt_instances.labels for s in batch]))
    # no area, upside down, no number
    batch[2].gt_instances.bboxes[:, 2] = torch.tensor([batch[2].gt_instances.bboxes[0, 0], 0, 90])
    batch[0].gt_instances.bboxes[1, 3] = float('nan')
    pairs = collect_own_pairs(batch, torch.device('cpu'))
    assert pairs.query_rois[:, 0].tolist() == [0, 2]
    assert pairs.labels[1] == batch[2].gt_instances.labels[2]
    assert collect_own_pairs([], torch.device('cpu')).query_rois.shape == (0, 5)


def test_own_boxes_outside_of_the_image_take_no_part():
    height, width = SIZE
    boxes = torch.tensor(
        [
            [width - 5.0, 10, width + 20, 30],  # its left edge is in the image
            [width + 1.0, 10, width + 20, 30],
            [10, height, 30, height + 9],
            [-20, 10, 0, 30],
            [10, -20, 30, -1],
            [0, 0, float('inf'), 20],
            [float('-inf'), 0, 10, 20],
            [float('nan'), 0, 10, 20],
            [5, 5, 15, 15],
        ]
    )
    sample = DetDataSample(metainfo=dict(img_shape=SIZE))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)))
    pairs = collect_own_pairs([sample], torch.device('cpu'))
    assert pairs.labels.tolist() == [0, 8]
    # as it is: what is outside is cut off where the box is moved
    assert pairs.query_rois[0].tolist() == [0, width - 5, 10, width + 20, 30]
    unknown = DetDataSample(gt_instances=sample.gt_instances)
    assert collect_own_pairs([unknown], torch.device('cpu')).labels.tolist() == [0, 1, 2, 8]


def test_boxes_paired_with_the_view_or_themselves():
    batch = [make_original(2, 0), make_original(3, 1), make_original(0, 2), make_original(1, 3)]
    batch[1].gt_instances.view_valid = torch.tensor([True, False, True])
    batch += [make_view(batch[1], 1), make_view(batch[2], 2)]
    batch[4].gt_instances.bboxes = batch[4].gt_instances.bboxes + 5
    pairs = collect_pairs_or_own(batch, torch.device('cpu'))
    # what the view leaves out is left out, though its image is there
    assert pairs.query_rois[:, 0].tolist() == [1, 1, 0, 0, 3]
    assert pairs.key_rois[:, 0].tolist() == [4, 4, 0, 0, 3]
    moved = (pairs.key_rois - pairs.query_rois)[:, 1:]
    assert torch.equal(moved.round(), torch.tensor([5.0, 5, 0, 0, 0])[:, None].expand(5, 4))
    labels = [batch[1].gt_instances.labels[[0, 2]], *(batch[i].gt_instances.labels for i in (0, 3))]
    assert torch.equal(pairs.labels, torch.cat(labels))


def test_boxes_paired_with_a_canvas_or_themselves():
    batch = [make_original(2, 0), make_original(2, 1), make_original(3, 2)]
    for sample, has_view in zip(batch, (True, True, False)):
        sample.set_metainfo(dict(has_view=has_view))
    batch.append(make_canvas([[0, 0, 8, 8]], batch[1].gt_instances.labels[1:], [1], [1]))
    pairs = collect_pairs_or_own(batch, torch.device('cpu'))
    # the first has a view, none of whose boxes found room
    assert pairs.query_rois[:, 0].tolist() == [1, 2, 2, 2]
    assert pairs.key_rois[:, 0].tolist() == [3, 2, 2, 2]


@pytest.mark.parametrize('views', [True, False])
def test_with_views_of_all_or_of_none_it_is_one_of_the_two(views):
    batch = [make_original(2, 0), make_original(0, 1), make_original(3, 2)]
    batch += [make_view(sample, i) for i, sample in enumerate(batch)] * views
    pairs = collect_pairs_or_own(batch, torch.device('cpu'))
    expected = (collect_pairs if views else collect_own_pairs)(batch, torch.device('cpu'))
    assert len(pairs.labels) == 5
    assert all(torch.equal(a, b) for a, b in zip(pairs, expected))
    assert collect_pairs_or_own([], torch.device('cpu')).query_rois.shape == (0, 5)
