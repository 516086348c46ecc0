"""Sampler, queue, jitter and weights of the contrastive branch."""

import math

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData

from mmdet_contrast.models.contrast import RegionContrast

SIZE = (96, 128)
STRIDES = (8, 16)
PATCHES = dict(type='PatchSampler', num_patches=9)
MLP = dict(type='MLPProjector', hidden_channels=8, out_channels=5)


def make_samples(counts, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    originals, views = [], []
    for position, count in enumerate(counts):
        start = torch.rand(count, 2, generator=generator, dtype=torch.double) * 60
        size = 6 + torch.rand(count, 2, generator=generator, dtype=torch.double) * 30
        boxes = torch.cat((start, start + size), dim=1)
        labels = torch.randint(classes, (count,), generator=generator)
        for samples, meta in ((originals, dict(view=0)), (views, dict(view=1, view_of=position))):
            sample = DetDataSample(metainfo=dict(img_shape=SIZE, **meta))
            sample.gt_instances = InstanceData(bboxes=boxes.clone(), labels=labels.clone())
            samples.append(sample)
    return originals + views


def make_feats(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            batch, 4, SIZE[0] // s, SIZE[1] // s, generator=generator, dtype=torch.double
        ).requires_grad_()
        for s in STRIDES
    ]


def build(**kwargs):
    torch.manual_seed(0)
    cfg = dict(type='RegionContrast', in_channels=4, strides=STRIDES, pool_size=3)
    module = MODELS.build({**cfg, 'background': 'never', **kwargs})
    module.init_weights()
    return module.double()


def values(module, feats, samples, seed=1):
    torch.manual_seed(seed)
    return module(feats, samples)


def cosine(a, b):
    return (a @ b) / a.norm() / b.norm()


def patch_loop(module, feats, samples, places_by_level, in_image):
    """PatchNCE and NT-Xent of given locations, one location at a time."""
    tau, losses = module.criterion.temperature, []
    for i, (feat, places) in enumerate(zip(feats, places_by_level)):
        count, views = len(places.y), []
        for image in (places.original, places.view):
            rows = [feat[image[m], :, places.y[m], places.x[m]] for m in range(count)]
            if len(module.projectors):
                project = module.projectors[0 if module.share_projector else i]
                rows = [project(row[None])[0] for row in rows]
            views.append(rows)
        nce = type(module.criterion).__name__ == 'PatchNCELoss'
        total = 0 * feat.sum()
        for m in range(count):
            others = [
                k for k in range(count) if not in_image or places.original[k] == places.original[m]
            ]
            if nce:
                logits = [cosine(views[0][m], views[1][k].detach()) / tau for k in others]
                positive = cosine(views[0][m], views[1][m].detach()) / tau
                total = total + torch.stack(logits).exp().sum().log() - positive
                continue
            for side in (0, 1):
                anchor = views[side][m]
                terms = [cosine(anchor, views[1 - side][k]) / tau for k in others]
                terms += [cosine(anchor, views[side][k]) / tau for k in others if k != m]
                positive = cosine(anchor, views[1 - side][m]) / tau
                total = total + (torch.stack(terms).exp().sum().log() - positive) / 2
        losses.append(total / max(count, 1) / len(feats))
    return losses


class TestPatches:
    """Feature locations in place of boxes."""

    @pytest.mark.parametrize(
        'negatives, scopes', [('image', ('image',)), ('batch', ('batch', 'all_ranks'))]
    )
    def test_scope_and_criterion_must_agree(self, negatives, scopes):
        criterion = dict(type='PatchNCELoss', negatives=negatives)
        for scope in ('image', 'batch', 'all_ranks'):
            if scope in scopes:
                build(sampler=PATCHES, criterion=criterion, scope=scope)
                continue
            with pytest.raises(ValueError, match=f'scope={scope!r} and PatchNCELoss.negatives='):
                build(sampler=PATCHES, criterion=criterion, scope=scope)

    @pytest.mark.parametrize(
        'kwargs',
        [
            dict(criterion=dict(type='NTXentLoss', negatives='all'), scope='image'),
            dict(criterion=dict(type='NTXentLoss', negatives='all'), projector=MLP),
            dict(
                criterion=dict(type='PatchNCELoss'),
                scope='image',
                projector=MLP,
                share_projector=False,
            ),
        ],
    )
    @pytest.mark.parametrize('region', ['boxes', 'all'])
    @pytest.mark.parametrize('counts', [(3, 2), (0, 2), (0,)])
    def test_equals_readable_loop(self, kwargs, region, counts):
        module = build(sampler=dict(PATCHES, region=region), **kwargs)
        feats, samples = make_feats(2 * len(counts)), make_samples(counts)
        losses = values(module, feats, samples)
        torch.manual_seed(1)
        places = module.sampler(feats, STRIDES, samples)
        expected = patch_loop(module, feats, samples, places, module.scope == 'image')
        assert list(losses) == ['loss_contrast_p3', 'loss_contrast_p4']
        variables = [*feats, *module.parameters()]
        gradients = [
            torch.autograd.grad(sum(x), variables, allow_unused=True)
            for x in (losses.values(), expected)
        ]
        for ours, theirs in zip(losses.values(), expected):
            torch.testing.assert_close(ours, theirs)
        for ours, theirs, variable in zip(*gradients, variables):
            assert ours is not None
            theirs = torch.zeros_like(variable) if theirs is None else theirs
            torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-6)
        if sum(counts):
            assert all(loss > 0 for loss in losses.values())

    def test_projectors_of_single_cells_exist_at_once(self):
        module = RegionContrast(
            [4, 6],
            strides=STRIDES,
            sampler=PATCHES,
            projector=dict(type='MLPProjector', hidden_channels=256, out_channels=256),
            share_projector=False,
        )
        shapes = [p.shape for n, p in module.named_parameters() if n.endswith('0.weight')]
        assert [tuple(shape) for shape in shapes] == [(256, 4), (256, 6)]

    def test_every_parameter_is_reached_without_locations_and_with_weight_zero(self):
        for weight in (0, 1):
            module = build(
                sampler=PATCHES,
                projector=MLP,
                share_projector=False,
                criterion=dict(type='NTXentLoss', loss_weight=weight),
            )
            loss = sum(values(module, make_feats(2), make_samples((0,))).values())
            loss.backward()
            assert loss == 0
            assert all(p.grad is not None and (p.grad == 0).all() for p in module.parameters())

    def test_half_precision(self):
        module = build(sampler=PATCHES, projector=MLP).float()
        feats = [f.detach().half().requires_grad_() for f in make_feats(4)]
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = values(module, feats, make_samples((3, 2)))
        sum(losses.values()).backward()
        assert all(v.dtype == torch.float32 and torch.isfinite(v) for v in losses.values())
        assert all(torch.isfinite(f.grad).all() for f in feats)


class TestQueue:
    """Embeddings of earlier batches as further negatives."""

    @pytest.mark.parametrize('assign', ['all', 'scale'])
    @pytest.mark.parametrize('background', ['never', 'always'])
    def test_entries_are_further_negatives_of_other_classes(self, assign, background):
        kwargs = dict(assign=assign, projector=MLP, background=background, num_background=2)
        plain, module = build(**kwargs), build(queue=dict(size=3), num_classes=3, **kwargs)
        seen = []
        criterion = module.criterion

        def record(query, key, **options):
            seen.append((query, key, options))
            return type(criterion).forward(criterion, query, key, **options)

        module.criterion.forward = record
        first, second = make_samples((4, 3)), make_samples((2, 3), seed=1)
        # nothing is in it at first
        assert values(module, make_feats(4), first) == values(plain, make_feats(4), first)
        keys = [query_key[1].detach() for query_key in seen]
        seen.clear()
        losses, before = (values(m, make_feats(4), second) for m in (module, plain))
        labels = torch.cat([s.gt_instances.labels for s in first[:2]])
        for level, (name, (_, _, options)) in enumerate(zip(losses, seen)):
            assert losses[name] >= before[name]
            entries = [
                (of, row)
                for of in range(3)
                for row in keys[0 if assign == 'scale' else level][labels == of][-3:]
            ]
            got = options['background'][-len(entries) :]
            torch.testing.assert_close(got, torch.stack([row for _, row in entries]))
            mask = options['background_mask'][:, -len(entries) :]
            for i, label in enumerate(options['labels'].tolist()):
                assert mask[i].tolist() == [of != label for of, _ in entries]
            extra = 0 if background == 'never' else 4
            assert len(options['background']) == len(entries) + extra
        assert sum(losses.values()) > sum(before.values()) + 1e-3
        sum(losses.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())

    @pytest.mark.parametrize('store, factor', [('keys', 1), ('queries', 1), ('both', 2)])
    def test_what_is_stored(self, store, factor):
        module = build(queue=dict(size=50, store=store), num_classes=3)
        values(module, make_feats(4), make_samples((4, 3)))
        assert module.queue.filled.sum(dim=1).tolist() == [7 * factor] * 2
        # without projector the flattened features are kept
        assert module.queue.entries.shape == (2, 3, 50, 4 * 9)

    def test_with_locations_unlabelled_ones_meet_all_and_are_not_kept(self):
        module = build(
            sampler=dict(PATCHES, region='all'), queue=dict(size=20), num_classes=3, projector=MLP
        )
        samples = make_samples((4, 3))
        values(module, make_feats(4), samples)
        torch.manual_seed(1)
        places = module.sampler(make_feats(4), STRIDES, samples)
        known = [int((p.labels >= 0).sum()) for p in places]
        assert module.queue.filled.sum(dim=1).tolist() == known and known[0] < len(places[0].y)
        losses = values(module, make_feats(4, seed=2), samples)
        assert all(torch.isfinite(v) for v in losses.values())

    def test_nothing_is_kept_in_eval_with_weight_zero_or_without_boxes(self):
        for kwargs, counts, training in (
            (dict(), (3,), False),
            (dict(criterion=dict(type='NTXentLoss', loss_weight=0)), (3,), True),
            (dict(), (0,), True),
        ):
            module = build(queue=dict(size=4), num_classes=3, **kwargs).train(training)
            values(module, make_feats(2), make_samples(counts))
            assert module.queue.filled.sum() == 0

    def test_goes_on_from_a_checkpoint(self):
        def make():
            return build(queue=dict(size=4), num_classes=3, projector=MLP)

        batches = [make_samples((3, 2), seed=seed) for seed in range(3)]
        whole, first, second = make(), make(), make()
        for seed, samples in enumerate(batches[:2]):
            for module in (whole, first):
                values(module, make_feats(4, seed), samples)
        second.load_state_dict(first.state_dict())
        ours, theirs = (values(m, make_feats(4, 2), batches[2]) for m in (second, whole))
        assert ours == theirs
        for name, value in whole.state_dict().items():
            assert torch.equal(value, second.state_dict()[name]), name

    def test_backward_after_the_queue_was_written(self):
        module = build(queue=dict(size=1), num_classes=3, projector=MLP)
        for seed in range(3):
            loss = sum(values(module, make_feats(4, seed), make_samples((4, 3))).values())
            loss.backward()

    def test_permuting_boxes_changes_nothing(self):
        totals = []
        for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
            module = build(queue=dict(size=9), num_classes=3, projector=MLP)
            samples = make_samples((4, 3))
            for i in (0, 2):
                samples[i].gt_instances = samples[i].gt_instances[torch.tensor(order)]
            for seed in range(2):
                losses = values(module, make_feats(4, seed), samples)
            totals.append(sum(losses.values()))
        torch.testing.assert_close(*totals)


def weighted_loop(module, feats, samples, weights):
    """NT-Xent over all boxes of the batch with a weight for each pair."""
    losses = []
    for i in range(len(STRIDES)):
        rois = bbox2roi([s.gt_instances.bboxes for s in samples]).float()
        rows = module._pool(feats[i], rois, STRIDES[i])
        labels = torch.cat([s.gt_instances.labels for s in samples])
        count, total, tau = len(rows) // 2, 0, module.criterion.temperature
        for a in range(2 * count):
            partner = (a + count) % (2 * count)
            others = [k for k in range(2 * count) if labels[k] != labels[a]] + [partner]
            logits = torch.stack([cosine(rows[a], rows[k]) / tau for k in others])
            total = total + weights[a % count] * (logits.logsumexp(0) - logits[-1])
        losses.append(total / (2 * weights.sum()) / len(STRIDES))
    return losses


class TestBoxes:
    """Jittered boxes and weighted pairs."""

    def test_area_weights_equal_readable_loop(self):
        module = build(pair_weights='area')
        feats, samples = make_feats(4), make_samples((4, 3))
        boxes = torch.cat([s.gt_instances.bboxes for s in samples[:2]])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        expected = weighted_loop(module, feats, samples, (areas / areas.mean()).clamp(0.1, 10))
        ours = list(values(module, feats, samples).values())
        for mine, reference in zip(ours, expected):
            torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-5)
        gradients = [torch.autograd.grad(sum(x), feats) for x in (ours, expected)]
        for mine, reference in zip(*gradients):
            torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-5)
        plain = list(values(build(), feats, samples).values())
        assert all(abs(a - b) > 1e-4 for a, b in zip(plain, ours))

    def test_jitter_follows_the_seed_and_moves_both_views(self):
        feats, samples = make_feats(4), make_samples((4, 3))
        # of two identical views the embeddings are the same unless the boxes move
        feats = [torch.cat((f[:2], f[:2])) for f in feats]
        options = dict(criterion=dict(type='NTXentLoss', temperature=0.1))
        still = sum(values(build(**options), feats, samples).values())
        first, again, other = (
            sum(values(build(box_jitter=0.3, **options), feats, samples, seed).values())
            for seed in (1, 1, 2)
        )
        assert first == again and first != other
        assert first > still + 1e-4 and other > still + 1e-4

    @pytest.mark.parametrize('counts', [(4, 3), (1,), (0,)])
    @pytest.mark.parametrize('assign', ['all', 'scale'])
    def test_iou_weights_are_finite_and_reach_everything(self, counts, assign):
        module = build(
            assign=assign, box_jitter=0.2, pair_weights='iou', projector=MLP, background='always'
        )
        losses = values(module, make_feats(2 * len(counts)), make_samples(counts))
        sum(losses.values()).backward()
        assert all(math.isfinite(v) for v in losses.values())
        assert all(p.grad is not None for p in module.parameters())

    def test_pair_without_weight_is_no_anchor(self, monkeypatch):
        from mmdet_contrast.models.contrast import region_contrast

        def first_only(boxes, *_):
            return torch.zeros(len(boxes)).index_fill(0, torch.tensor([0]), 0.5)

        monkeypatch.setattr(region_contrast, 'iou_weights', first_only)
        monkeypatch.setattr(region_contrast, 'jitter_rois', lambda rois, *_: rois)
        module = build(box_jitter=0.1, pair_weights='iou')
        feats, samples = make_feats(4), make_samples((4, 3))
        expected = weighted_loop(module, feats, samples, torch.eye(7)[0])
        for mine, reference in zip(values(module, feats, samples).values(), expected):
            torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-5)


class _Silent(torch.nn.Module):
    """A projector that does not tell the length of its embeddings."""

    def __init__(self, in_channels):
        super().__init__()


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(box_jitter=0.5), 'from 0 to below 0.5'),
        (dict(box_jitter=-0.1), 'from 0 to below 0.5'),
        (dict(pair_weights='size'), "pair_weights='size', one of"),
        (dict(pair_weights='iou'), 'without box_jitter'),
        (dict(sampler=PATCHES, assign='scale'), "a sampler together with assign='scale'"),
        (dict(sampler=PATCHES, background='always'), "together with background='always'"),
        (dict(sampler=PATCHES, box_jitter=0.1), 'together with box_jitter=0.1'),
        (dict(sampler=PATCHES, pair_weights='area'), "together with pair_weights='area'"),
        (dict(queue=dict()), 'a queue but not the number of classes'),
        (
            dict(queue=dict(), num_classes=3, projector=dict(type=_Silent)),
            "not the length of the projector's embeddings: set contrast.queue.channels",
        ),
        (
            dict(queue=dict(), num_classes=3, sampler=dict(PATCHES, region='outside')),
            'whose locations have no class',
        ),
    ],
)
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RegionContrast(**kwargs)


def test_a_criterion_compares_pairs():
    with pytest.raises(TypeError, match='got TripletLoss as contrast.criterion, .*PairTripletLoss'):
        RegionContrast(8, criterion=dict(type='TripletLoss'))


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(queue=dict(num_classes=3, channels=4)), 'a queue and SimSiamLoss'),
        (dict(background='always'), "background='always' and SimSiamLoss"),
    ],
)
def test_what_has_negatives_needs_a_criterion_that_uses_them(kwargs, message):
    criterion = dict(type='SimSiamLoss', in_channels=4)
    with pytest.raises(ValueError, match=message):
        RegionContrast(8, criterion=criterion, **kwargs)


class TestKeysOfTheSameImage:
    """Both regions of an object from one image."""

    @pytest.mark.parametrize(
        'kwargs',
        [
            dict(),
            dict(assign='scale', projector=MLP),
            dict(pair_weights='iou', detach_keys=True),
            dict(queue=dict(type='FeatureQueue', num_classes=3, size=4)),
            dict(criterion=dict(type='SupConLoss')),
        ],
    )
    @pytest.mark.parametrize('counts', [(3, 2), (0, 4), (0,)])
    def test_is_that_of_a_view_which_is_the_image(self, kwargs, counts):
        kwargs = dict(kwargs, box_jitter=0.2)
        batch, number = make_samples(counts), len(counts)
        results = []
        for source in ('image', 'view'):
            module, feats = build(key_source=source, **kwargs), make_feats(number)
            shown = feats if source == 'image' else [torch.cat((f, f)) for f in feats]
            # the second time with a filled queue
            for _ in range(2):
                losses = values(module, shown, batch[:number] if source == 'image' else batch)
            gradients = torch.autograd.grad(
                sum(losses.values()), [*feats, *module.parameters()], allow_unused=True
            )
            results.append((losses, gradients))
        for name, value in results[1][0].items():
            torch.testing.assert_close(results[0][0][name], value)
        assert sum(counts) == 0 or sum(losses.values()) > 0
        for mine, theirs in zip(results[0][1], results[1][1]):
            if theirs is not None:
                torch.testing.assert_close(mine, theirs)

    @pytest.mark.parametrize('seen', [0, 1, 2, 3])
    def test_or_of_the_view_where_there_is_one(self, seen):
        counts, kwargs = (3, 2, 4), dict(box_jitter=0.2, projector=MLP)
        batch = make_samples(counts)
        module, feats = build(key_source='image', **kwargs), make_feats(3)
        expected = values(module, feats, batch[:3])
        # views that are their images, of the first so many
        shown = [torch.cat((f, f[:seen])) for f in feats]
        losses = values(build(key_source='view_or_image', **kwargs), shown, batch[: 3 + seen])
        for name, value in expected.items():
            assert value > 0
            torch.testing.assert_close(losses[name], value)

    def test_some_from_views_and_some_from_the_image(self):
        batch, pooled = make_samples((3, 2, 4)), []
        module = build(key_source='view_or_image', box_jitter=0.2)
        embed = module.embed
        module.embed = lambda feats, rois, level: pooled.append(rois) or embed(feats, rois, level)
        # the last image alone has a view
        batch[5].set_metainfo(dict(view_of=2))
        losses = values(module, make_feats(4), [*batch[:3], batch[5]])
        assert all(loss > 0 for loss in losses.values())
        query, key = pooled[0].chunk(2)
        assert query[:, 0].tolist() == [2] * 4 + [0] * 3 + [1] * 2
        assert key[:, 0].tolist() == [3] * 4 + [0] * 3 + [1] * 2
        assert (query != key)[:, 1:].all()

    def test_the_two_regions_differ(self):
        criterion = dict(type='SimSiamLoss', in_channels=5, hidden_channels=4)
        module = build(key_source='image', box_jitter=0.2, projector=MLP, criterion=criterion)
        pooled = []
        module.embed = lambda feats, rois, level: (
            pooled.append(rois) or rois.new_zeros(len(rois), 2, 5)
        )
        values(module, make_feats(1), make_samples((3,))[:1])
        query, key = pooled[0].chunk(2)
        assert (query[:, 1:] != key[:, 1:]).all()

    def test_wrong_settings(self):
        with pytest.raises(
            ValueError, match="key_source='image' without box_jitter: .* e.g. to 0.1"
        ):
            build(key_source='image')
        with pytest.raises(ValueError, match="key_source='view_or_image' without box_jitter"):
            build(key_source='view_or_image')
        with pytest.raises(ValueError, match="key_source='self', one of"):
            build(key_source='self')
        with pytest.raises(ValueError, match="sampler together with key_source='image'"):
            build(key_source='image', sampler=PATCHES, criterion=dict(type='PatchNCELoss'))
