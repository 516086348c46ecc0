"""Which boxes are paired, against readable loops."""

import pytest
import torch
from contrast_batches import SIZE, STRIDES, make_feats, make_samples
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_contrast.models.contrast import JitteredBoxes, ViewBoxes


def sample(sampler, samples):
    batch = sampler(make_feats(len(samples)), STRIDES, samples)
    query, key, extra = batch.rows[0].split(
        (batch.num_pairs, batch.num_pairs, batch.rows.shape[1] - 2 * batch.num_pairs)
    )
    return batch, query, key, extra


@pytest.mark.parametrize('counts', [(3, 2, 4), (0, 0, 0), (5, 0, 1, 2, 3), (4,)])
def test_boxes_are_paired_with_those_of_their_view(counts):
    samples = make_samples(counts)
    batch, query, key, extra = sample(ViewBoxes(background=0), samples)
    expected = []
    for i in range(len(counts)):
        instances = samples[i].gt_instances
        picture, left, top = samples[i].view_place
        for box, label, valid in zip(instances.bboxes, instances.labels, instances.view_valid):
            corner = torch.tensor([left * SIZE[1], top * SIZE[0]] * 2)
            entry = ([i, *box.tolist()], [picture, *(box / 2 + corner).tolist()])
            expected.append((*entry, int(label), bool(valid)))
    assert len(extra) == 0 and batch.num_pairs == len(expected)
    assert batch.labels.shape == batch.valid.shape == (1, len(expected))
    for m, (first, second, label, valid) in enumerate(expected):
        assert batch.valid[0, m] == valid and batch.labels[0, m] == label
        if valid:
            assert query[m].tolist() == first
            assert key[m].tolist() == pytest.approx(second)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0, 0.49))
def test_jittered_boxes_stay_in_the_image_and_near_their_own(seed, share):
    torch.manual_seed(seed)
    samples = make_samples((6, 0, 5), views=False, seed=seed)
    # reaches out of the image; from its left to its right edge
    samples[0].gt_instances.bboxes[:2] = torch.tensor([[-9.0, 90, 30, 170], [0, 5, SIZE[1], 9]])
    batch, *pairs, _ = sample(JitteredBoxes(share, background=0), samples)
    boxes = torch.cat([s.gt_instances.bboxes for s in samples])
    limits = torch.tensor([SIZE[1], SIZE[0]] * 2)
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    reach = share * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) + 1e-3
    for rois in pairs:
        assert rois[:, 0].tolist() == [0] * 6 + [2] * 5
        assert (rois[:, 1:] >= 0).all() and (rois[:, 1:] <= limits).all()
        assert ((rois[:, 1:] - boxes).abs() <= reach)[batch.valid[0]].all()
        assert (rois[:, 3:] > rois[:, 1:3])[batch.valid[0]].all()
    assert torch.equal(batch.valid[0], (boxes[:, 2:] > boxes[:, :2]).all(dim=1))


def test_boxes_without_an_area_in_the_image_take_no_part():
    height, width = SIZE
    boxes = torch.tensor(
        [
            [width - 5.0, 10, width + 20, 30],  # its left edge is in the image
            [width + 1.0, 10, width + 20, 30],
            [10, height, 30, height + 9],
            [-20, 10, 0, 30],
            [10, 10, 10, 30],
            [60, 10, 40, 30],
            [float('nan'), 0, 10, 20],
            [0, 0, float('inf'), 20],
            [5, 5, 15, 15],
        ]
    )
    samples = make_samples((9,), views=False)
    samples[0].gt_instances.bboxes = boxes
    batch, query, key, _ = sample(JitteredBoxes(), samples)
    assert batch.valid[0].nonzero()[:, 0].tolist() == [0, 7, 8]
    # what is pooled all the same must be a region
    for rois in (query, key):
        assert rois.isfinite().all() and (rois[:, 3:] >= rois[:, 1:3]).all()


@pytest.mark.parametrize('sampler', [ViewBoxes, JitteredBoxes])
@pytest.mark.parametrize('counts', [(3, 2), (0, 0)])
def test_background_is_drawn_in_every_original(sampler, counts):
    batch, _, _, extra = sample(sampler(background=3), make_samples(counts))
    assert extra[:, 0].tolist() == [0] * 3 + [1] * 3
    assert batch.fallback_mask.shape == (1, 1, 6) and batch.fallback_mask.all()


@pytest.mark.parametrize('sampler', [ViewBoxes, JitteredBoxes])
def test_background_touches_no_ignored_region(sampler):
    samples = make_samples((0, 0))
    for mask, boxes in ((True, [[0.0, 0, 1, 1]]), (False, [[0.0, 0, SIZE[1], SIZE[0]]])):
        samples[0].ignored_instances.bboxes = torch.tensor(boxes)
        batch, _, _, _ = sample(sampler(background=3), samples)
        assert batch.fallback_mask[0, 0].tolist() == [mask] * 3 + [True] * 3
