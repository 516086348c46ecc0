import pytest
import torch
from mmcv.ops import roi_align
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_contrast.models.contrast import RegionContrast, region_contrast

SIZE = (256, 320)
STRIDES = (8, 16, 32, 64, 128)


def make_samples(counts, classes=3, valid_share=0.8, seed=0, dtype=torch.float32):
    """2N samples, the views with boxes of their own."""
    generator = torch.Generator().manual_seed(seed)
    originals, views = [], []
    for position, count in enumerate(counts):
        start = torch.rand(count, 2, generator=generator, dtype=dtype) * 200
        # from a few pixels, far less than a cell of P7, to much of the picture
        size = 4 + torch.rand(count, 2, generator=generator, dtype=dtype) ** 2 * 150
        boxes = torch.cat((start, start + size), dim=1)
        labels = torch.randint(classes, (count,), generator=generator)
        valid = torch.rand(count, generator=generator) < valid_share
        for samples, shift in ((originals, 0), (views, 3)):
            sample = DetDataSample(metainfo=dict(img_shape=SIZE, view=0))
            sample.gt_instances = InstanceData(
                bboxes=boxes + shift, labels=labels, view_valid=valid
            )
            sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
            samples.append(sample)
        views[-1].set_metainfo(dict(view=1, view_of=position))
    return originals + views


def make_feats(batch, channels=4, dtype=torch.double, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            batch, channels, -(-SIZE[0] // s), -(-SIZE[1] // s), dtype=dtype, generator=generator
        ).requires_grad_()
        for s in STRIDES
    ]


def build(**kwargs):
    cfg = dict(
        type='RegionContrast', in_channels=4, strides=STRIDES, pool_size=3, background='never'
    )
    torch.manual_seed(0)
    module = MODELS.build(dict(cfg, **kwargs))
    module.init_weights()
    return module.double()


def level_of(box, levels):
    side = float(((box[2] - box[0]) * (box[3] - box[1])).clamp(min=1)) ** 0.5
    ratios = [max(side / (4 * STRIDES[i]), 4 * STRIDES[i] / side) for i in levels]
    return ratios.index(min(ratios))


def readable_loop(module, feats, samples):
    """The whole branch, one box and one level at a time."""
    number = len(samples) // 2
    boxes = []
    for i in range(number):
        original, view = samples[i].gt_instances, samples[number + i].gt_instances
        for j in range(len(original)):
            if original.view_valid[j]:
                entry = (i, original.bboxes[j], number + i, view.bboxes[j], int(original.labels[j]))
                boxes.append(entry)
    size, tau = module.pool_size, module.criterion.temperature
    scale = module.assign == 'scale'
    assigned = [level_of(b[1], module.levels) for b in boxes]

    def embed(position, index, box):
        level = module.levels[position]
        rois = torch.cat((box.new_tensor([index]), box))[None].double()
        pooled = roi_align(
            feats[level], rois, (size, size), 1 / STRIDES[level], module.sampling_ratio, 'avg', True
        ).reshape(1, -1)
        if len(module.projectors):
            pooled = module.projectors[0 if module.share_projector else position](pooled)
        return pooled[0] / pooled[0].norm()

    losses = {}
    for position in range(len(module.levels)):
        points = []
        for view in (0, 2):
            for k, box in enumerate(boxes):
                at = assigned[k] if scale else position
                embedding = embed(at, box[view], box[view + 1])
                if view == 2 and module.detach_keys:
                    embedding = embedding.detach()
                points.append(embedding)
        total = 0 * sum(f.sum() for f in feats)
        for a in range(len(points)):
            mine = boxes[a % len(boxes)]
            if scale and assigned[a % len(boxes)] != position:
                continue
            partner = (a + len(boxes)) % len(points)
            terms = [torch.exp(points[a] @ points[partner] / tau)]
            for k in range(len(points)):
                other = boxes[k % len(boxes)]
                if k in (a, partner):
                    continue
                if module.criterion.negatives == 'other_class' and other[4] == mine[4]:
                    continue
                if module.scope == 'image' and other[0] != mine[0]:
                    continue
                terms.append(torch.exp(points[a] @ points[k] / tau))
            total = total - torch.log(terms[0] / sum(terms))
        weight = module.level_weights[position] * module.criterion.loss_weight
        share = 1 if scale else len(module.levels)
        losses[module.names[position]] = weight * total / max(2 * len(boxes), 1) / share
    return losses


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(projector=dict(type='MLPProjector', hidden_channels=8, out_channels=5)),
        dict(
            projector=dict(type='MLPProjector', hidden_channels=8, out_channels=5),
            share_projector=False,
        ),
        dict(assign='scale', projector=dict(type='MLPProjector', out_channels=5)),
        dict(assign='scale', scope='image'),
        dict(scope='image'),
        dict(levels=(0, 2), level_weights=(0.5, 2.0)),
        dict(detach_keys=True),
        dict(criterion=dict(type='NTXentLoss', negatives='all', temperature=0.2, loss_weight=0.3)),
        dict(scope='all_ranks', sampling_ratio=1),
    ],
)
@pytest.mark.parametrize('counts', [(4, 3), (5,), (1,), (0, 3), (0, 0)])
def test_equals_readable_loop(kwargs, counts):
    module = build(**kwargs)
    samples = make_samples(counts, dtype=torch.double)
    feats = make_feats(2 * len(counts))
    losses = module(feats, samples)
    expected = readable_loop(module, feats, samples)
    assert list(losses) == list(expected)
    variables = [*feats, *module.parameters()]
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name], atol=1e-5, rtol=1e-5)
    ours, theirs = (
        torch.autograd.grad(sum(x.values()), variables, allow_unused=True)
        for x in (losses, expected)
    )
    for mine, reference, variable in zip(ours, theirs, variables):
        mine = torch.zeros_like(variable) if mine is None else mine
        reference = torch.zeros_like(variable) if reference is None else reference
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-5)


def total(module, feats, samples):
    return sum(module(feats, samples).values())


@pytest.mark.parametrize('assign', ['all', 'scale'])
def test_three_hundred_boxes_and_one_class(assign):
    module = build(assign=assign, projector=dict(type='MLPProjector'))
    feats = make_feats(4)
    loss = total(module, feats, make_samples((300, 1), valid_share=1.0, dtype=torch.double))
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(f.grad).all() for f in feats)
    one_class = total(module, make_feats(4), make_samples((6, 5), classes=1, dtype=torch.double))
    assert one_class.item() == pytest.approx(0, abs=1e-12)


def test_permuting_boxes_changes_nothing():
    module = build()
    feats, samples = make_feats(4), make_samples((6, 5), dtype=torch.double)
    value = total(module, feats, samples)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    for position in (0, 2):
        samples[position].gt_instances = samples[position].gt_instances[order]
    torch.testing.assert_close(total(module, feats, samples), value)


def test_order_of_the_batch_changes_nothing():
    module = build()
    feats, samples = make_feats(4), make_samples((6, 5), dtype=torch.double)
    value = total(module, feats, samples)
    swapped = [samples[i] for i in (1, 0, 3, 2)]
    for position, sample in enumerate(swapped[2:]):
        sample.set_metainfo(dict(view_of=position))
    feats = [f[[1, 0, 3, 2]] for f in feats]
    torch.testing.assert_close(total(module, feats, swapped), value)


def test_every_parameter_is_reached_without_boxes_and_with_weight_zero():
    for kwargs in (dict(), dict(criterion=dict(type='NTXentLoss', loss_weight=0))):
        module = build(projector=dict(type='MLPProjector'), share_projector=False, **kwargs)
        loss = total(module, make_feats(2), make_samples((0,), dtype=torch.double))
        loss.backward()
        assert loss == 0
        assert all(p.grad is not None and (p.grad == 0).all() for p in module.parameters())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_mixed_precision_is_finite(dtype):
    module = build(projector=dict(type='MLPProjector')).float()
    feats = [(100 * f).to(dtype).detach().requires_grad_() for f in make_feats(4)]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = module(feats, make_samples((6, 5)))
    sum(losses.values()).backward()
    assert all(v.dtype == torch.float32 and torch.isfinite(v) for v in losses.values())
    assert all(torch.isfinite(f.grad).all() for f in feats)


def test_batch_in_which_one_image_has_no_view():
    module = build()
    samples, feats = make_samples((6, 5), dtype=torch.double), make_feats(4)
    value = total(module, [f[[0, 1, 3]] for f in feats], [samples[i] for i in (0, 1, 3)])
    # the same as if the first image had no box to compare
    samples[0].gt_instances.view_valid[:] = False
    torch.testing.assert_close(value, total(module, feats, samples))


class TestBackground:
    """Background regions as further negatives."""

    def value(self, samples, scope='batch', **kwargs):
        torch.manual_seed(1)
        return total(build(scope=scope, **kwargs), make_feats(len(samples)), samples)

    def test_when_needed_only_where_there_is_no_other_class(self):
        several = make_samples((6, 5), dtype=torch.double)
        never, needed, always = (
            self.value(several, background=when) for when in ('never', 'when_needed', 'always')
        )
        torch.testing.assert_close(never, needed)
        assert always > never + 1e-3
        single = make_samples((3, 2), classes=1, dtype=torch.double)
        assert self.value(single).item() == pytest.approx(0, abs=1e-12)
        torch.testing.assert_close(
            self.value(single, background='when_needed'), self.value(single, background='always')
        )
        assert self.value(single, background='when_needed') > 1e-3

    def test_scope_image_needs_it_where_the_batch_would_not(self):
        samples = make_samples((4, 4), classes=1, dtype=torch.double)
        for sample in (samples[1], samples[3]):
            sample.gt_instances.labels[:] = 1
        value = self.value(samples, 'image', background='when_needed')
        assert value > self.value(samples, 'image') + 1e-3
        torch.testing.assert_close(
            self.value(samples, background='when_needed'), self.value(samples)
        )

    @pytest.mark.parametrize('scope', ['batch', 'image'])
    def test_rows_of_unknown_class_are_negatives_of_each_other(self, scope):
        samples = make_samples((2,), valid_share=1.1, dtype=torch.double)
        for sample in samples:
            sample.gt_instances.labels[:] = -1
        values = [self.value(samples, scope, background=b) for b in ('never', 'when_needed')]
        assert values[0] > 1e-3
        torch.testing.assert_close(*values)
        # alone there is nothing to compare it with
        for sample in samples:
            sample.gt_instances.view_valid[1] = False
        values = [self.value(samples, scope, background=b) for b in ('always', 'when_needed')]
        assert values[0] > 1e-3
        torch.testing.assert_close(*values)

    def test_none_is_embedded_for_a_criterion_without_negatives(self, monkeypatch):
        monkeypatch.setattr(region_contrast, 'sample_background_boxes', None)
        criterion = dict(type='SimSiamLoss', in_channels=4 * 9)
        samples = make_samples((3, 2), classes=1, dtype=torch.double)
        value = self.value(samples, background='when_needed', criterion=criterion)
        torch.testing.assert_close(value, self.value(samples, criterion=criterion))

    def test_no_room_for_background(self):
        samples = make_samples((1,), valid_share=1.1, dtype=torch.double)
        for sample in samples:
            sample.gt_instances.bboxes[:] = torch.tensor([0.0, 0, SIZE[1], SIZE[0]])
        loss = self.value(samples, background='always')
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize('assign', ['all', 'scale'])
    def test_no_box(self, assign):
        samples = make_samples((0,), dtype=torch.double)
        loss = self.value(samples, background='always', assign=assign)
        assert loss == 0 and loss.requires_grad


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(scope='world'), "scope='world', one of"),
        (dict(assign='size'), "assign='size', one of"),
        (dict(background='yes'), "background='yes', one of"),
        (dict(levels=(0, 7)), 'indices from 0 to 4'),
        (dict(levels=(0, 0)), 'each once'),
        (dict(num_background=0), "num_background=0, .* set contrast.background='never'"),
        (dict(level_weights=(1.0, 2.0)), 'one for each level used'),
        (dict(sampling_ratio=0), 'at least 1'),
    ],
)
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RegionContrast(**kwargs)


def test_data_with_one_class_is_contrasted_with_background_by_default():
    module = RegionContrast(in_channels=4, strides=STRIDES, pool_size=3)
    feats = [f.float() for f in make_feats(4)]
    assert total(module, feats, make_samples((3, 2), classes=1)) > 1e-3


def test_all_ranks_of_a_single_process_are_its_batch():
    # without other ranks 'all_ranks' is the batch, background included
    values = []
    for scope in ('batch', 'all_ranks'):
        torch.manual_seed(2)
        module = build(scope=scope, background='always')
        values.append(total(module, make_feats(4), make_samples((3, 2), dtype=torch.double)))
    torch.testing.assert_close(*values)


def test_levels_whose_strides_have_one_power_of_two_keep_their_losses():
    strides = (32, 64, 100)
    module = RegionContrast(4, strides=strides, pool_size=3, share_projector=False).double()
    feats = [
        torch.randn(4, 4, -(-SIZE[0] // s), -(-SIZE[1] // s), dtype=torch.double) for s in strides
    ]
    losses = module(feats, make_samples((3, 2), dtype=torch.double))
    assert list(losses) == [f'loss_contrast_level{i}' for i in range(3)]
    assert all(value > 0 for value in losses.values())
