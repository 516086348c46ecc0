"""The contrastive branch against a readable loop, and what it promises."""

import math

import pytest
import torch
import torch.nn.functional as F
from contrast_batches import ReadableBranch, build, make_feats, make_samples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmdet_contrast.models.contrast import RegionContrast, pool_regions

PATCHES = dict(type='PatchSampler', num_patches=9)
CASES = {
    'defaults': dict(),
    'objects': dict(average='objects', queue=dict(size=2)),
    'image': dict(scope='image'),
    'all ranks': dict(scope='all_ranks'),
    'own projectors': dict(share_projector=False),
    'all negatives': dict(
        criterion=dict(type='NTXentLoss', negatives='all', temperature=0.2, loss_weight=0.3)
    ),
    'supcon': dict(criterion=dict(type='SupConLoss')),
    'queue': dict(queue=dict(size=2)),
    'queue, image': dict(queue=dict(size=2), scope='image', criterion=dict(type='SupConLoss')),
    'no background': dict(sampler=dict(type='ViewBoxes', background=0, pool_size=2)),
    'jitter': dict(sampler=dict(type='JitteredBoxes', jitter=0.2)),
    'patches': dict(
        sampler=PATCHES,
        share_projector=False,
        scope='image',
        criterion=dict(type='PatchNCELoss'),
    ),
    'patches, queue': dict(sampler=dict(PATCHES, region='all'), queue=dict(size=3)),
}


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


def run(module, feats, samples, seed=1):
    torch.manual_seed(seed)
    return module(feats, samples)


@pytest.mark.parametrize(
    ('case', 'counts'),
    [
        *((case, (4, 3)) for case in CASES),
        *(
            (case, counts)
            for case in ('queue, image', 'patches')
            for counts in ((1,), (0, 3), (0, 0))
        ),
    ],
)
def test_equals_readable_loop(case, counts):
    module = build(trust=False, **CASES[case])
    loop = ReadableBranch(module)
    # the second time with a filled queue
    for seed in range(2):
        samples = make_samples(counts, seed=seed)
        feats = make_feats(len(samples), seed=seed)
        losses = run(module, feats, samples)
        torch.manual_seed(1)
        expected, _ = loop(feats, module.sampler(feats, module.strides, samples))
        assert list(losses) == list(expected)
        for name in losses:
            torch.testing.assert_close(losses[name], expected[name], atol=1e-5, rtol=1e-5)
        variables = [*feats, *module.parameters()]
        gradients = []
        for values in (losses, expected):
            found = torch.autograd.grad(total(values), variables, allow_unused=True)
            gradients.append(
                [torch.zeros_like(v) if g is None else g for v, g in zip(variables, found)]
            )
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def test_levels_of_different_channels_and_one_power_of_two():
    module = build(in_channels=(2, 4, 3), strides=(32, 64, 100), trust=False)
    samples = make_samples((3, 2))
    feats = [make_feats(len(samples), c, (s,))[0] for c, s in ((2, 32), (4, 64), (3, 100))]
    losses = run(module, feats, samples)
    assert list(losses) == [f'loss_contrast_level{i}' for i in range(3)]
    torch.manual_seed(1)
    expected, _ = ReadableBranch(module)(feats, module.sampler(feats, module.strides, samples))
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('case', ['defaults', 'jitter', 'patches'])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000))
def test_order_of_the_boxes_changes_nothing(case, seed):
    module, values = build(**CASES[case]).eval(), []
    if case == 'jitter':  # so little that it does not matter what is drawn for which box
        module.sampler.jitter = 1e-9
    for order in (torch.arange(5), torch.randperm(5)):
        first, *rest = samples = make_samples((5, 4), seed=seed)
        first.gt_instances = first.gt_instances[order]
        picture = rest[1].gt_instances
        rest[1].gt_instances = picture[torch.cat((order, torch.arange(5, 9)))]
        values.append(total(run(module, make_feats(3), samples)))
    torch.testing.assert_close(*values)


@pytest.mark.parametrize('case', ['defaults', 'queue', 'jitter', 'supcon'])
def test_boxes_that_are_not_valid_are_not_there(case):
    module = build(**{**CASES[case], 'sampler': dict(type='ViewBoxes', background=0)})
    valid = torch.tensor([True, False, True, True, False])
    values = []
    for removed in (False, True):
        first, second, picture = make_samples((5, 3), valid_share=1.1)
        first.gt_instances.view_valid[:] = valid
        # whatever they are
        picture.gt_instances.bboxes[1] = float('nan')
        first.gt_instances.bboxes[4] = torch.tensor([50.0, 50, 20, float('inf')])
        if removed:
            first.gt_instances = first.gt_instances[valid]
            kept = torch.cat((valid, torch.ones(3, dtype=torch.bool)))
            picture.gt_instances = picture.gt_instances[kept]
        losses = run(module, make_feats(3), [first, second, picture])
        values.append({k: v for k, v in losses.items() if 'loss' in k})
        module = build(**{**CASES[case], 'sampler': dict(type='ViewBoxes', background=0)})
    assert total(values[0]) > 1e-3
    torch.testing.assert_close(*values)


@pytest.mark.parametrize(
    ('case', 'weight'), [*((case, 1) for case in (*CASES, 'simsiam', 'triplet')), ('defaults', 0)]
)
def test_nothing_to_do_is_a_zero_that_reaches_every_parameter(case, weight):
    kwargs = dict(CASES.get(case, {}))
    simsiam = dict(type='SimSiamLoss', in_channels=5)
    own = dict(simsiam=simsiam, triplet=dict(type='PairTripletLoss')).get(case)
    criterion = own or kwargs.get('criterion', dict(type='NTXentLoss'))
    module = build(**{**kwargs, 'criterion': dict(criterion, loss_weight=weight)})
    module.sampler.region = 'boxes'  # locations are everywhere else
    loss = total(module(make_feats(2), make_samples((0,))))
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in module.parameters())


def test_three_hundred_boxes_and_one_class():
    module = build(queue=dict(size=64))
    for counts, classes in (((300, 1), 3), ((6, 5), 1)):
        feats = make_feats(3)
        loss = total(module(feats, make_samples(counts, classes=classes)))
        loss.backward()
        # those of one class are compared with the background
        assert loss > 1e-3 and all(f.grad.isfinite().all() for f in feats)
    alone = build(sampler=dict(type='ViewBoxes', background=0))
    loss = total(alone(make_feats(3), make_samples((6, 5), classes=1)))
    assert loss.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('case', ['queue', 'patches'])
def test_mixed_precision_is_finite(case, dtype):
    module = build(**CASES[case]).float()
    for _ in range(2):
        feats = [(100 * f).detach().to(dtype).requires_grad_() for f in make_feats(3)]
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = module(feats, make_samples((6, 5)))
        total(losses).backward()
        assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
        assert all(f.grad.isfinite().all() for f in feats)


def test_unknown_scope():
    with pytest.raises(ValueError, match="scope='world' given, one of"):
        RegionContrast(scope='world')


class TestQueue:
    """When embeddings are kept; what they do is in the comparison with the loop."""

    @pytest.mark.parametrize(
        'kwargs, counts, training',
        [
            (dict(), (3,), False),
            (dict(criterion=dict(type='NTXentLoss', loss_weight=0)), (3,), True),
            (dict(), (0,), True),
        ],
    )
    def test_nothing_is_kept_in_eval_with_weight_zero_or_without_boxes(
        self, kwargs, counts, training
    ):
        module = build(queue=dict(size=4), **kwargs).train(training)
        module(make_feats(2), make_samples(counts))
        assert not module.queue.mask(torch.full((1, 1), -1)).any()

    def test_is_not_in_checkpoints_and_not_for_a_criterion_without_negatives(self):
        assert not any('queue' in key for key in build(queue=dict(size=4)).state_dict())
        criterion = dict(type='SimSiamLoss', in_channels=5)
        module = build(queue=dict(size=4), criterion=criterion)
        assert module.queue is None and module.sampler.background == 0


class Planted(nn.Module):
    """A projector that returns given rows."""

    out_channels = 12

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, x):
        return self.rows + 0 * x.sum()


def alike(seed=0):
    """Features of two images and of a picture whose upper tiles show them at half size."""
    feats = []
    for feat in make_feats(2, seed=seed):
        small = F.avg_pool2d(feat.detach(), 2)
        tiles = torch.cat(tuple(small), dim=2)
        picture = torch.cat((tiles, torch.zeros_like(tiles)), dim=1)
        large = F.interpolate(small, scale_factor=2, mode='bilinear')
        feats.append(torch.cat((large, picture[None])))
    return feats


def levels_of(losses):
    return [value.item() for name, value in losses.items() if 'loss' in name]


class TestTrust:
    """The share of the gradient that goes into the detector."""

    @pytest.mark.parametrize(
        'case', ['defaults', 'no background', 'own projectors', 'supcon', 'patches']
    )
    def test_is_a_running_mean_of_what_is_learnt(self, case):
        module = build(**CASES[case])
        loop, trust = ReadableBranch(module), [0.0] * len(module.strides)
        for seed in range(3):
            samples = make_samples((4, 3), seed=seed)
            # an object looks the same in both views, more or less
            feats = [
                0.2 * feat + other
                for feat, other in zip(make_feats(3, seed=seed), alike(seed=9 + seed))
            ]
            losses = run(module, feats, samples)
            # that of the gradient, from the batches before: a mean whose weights are its values
            mean = sum(t**4 for t in trust) / max(sum(t * t for t in trust), 1e-6)
            assert losses['contrast_trust'].item() == pytest.approx(mean, abs=1e-5)
            torch.manual_seed(1)
            _, means = loop(feats, module.sampler(feats, module.strides, samples))
            for i, (loss, chance) in enumerate(means):
                share = min(max(1 - loss / chance, 0), 1) if chance > 0 else trust[i]
                trust[i] = 0.95 * trust[i] + 0.05 * share
            assert module.trust.tolist() == pytest.approx(trust, abs=1e-5)
        assert max(trust) > 1e-3

    @pytest.mark.parametrize('average', ['classes', 'objects'])
    def test_with_a_queue_is_the_information_about_classes(self, average):
        module = build(queue=dict(size=4), average=average)
        trust = [0.0] * len(module.strides)
        for seed in range(4):
            samples, feats = make_samples((4, 3), seed=seed), make_feats(3, seed=seed)
            with torch.no_grad():
                batch = module.sampler(feats, module.strides, samples)
                pooled = pool_regions(feats, batch.rows, module.strides, module.sampler.pool_size)
                rows = module.projector(pooled)[:, : 2 * batch.num_pairs]
            logits = torch.cosine_similarity(
                rows[:, :, None], module.queue.entries[:, None].to(rows), dim=3
            )
            losses, chance = module.queue.tell_classes(logits / 0.5, batch.labels.repeat(1, 2))
            of = [int(c) for c in batch.labels[0].repeat(2)]
            counts = [bool(v) for v in batch.valid[0].repeat(2)]
            number = {c: sum(k and o == c for k, o in zip(counts, of)) for c in set(of)}
            run(module, feats, samples)
            for level in range(len(trust)):
                sums = [0.0, 0.0]
                for i, (label, counted) in enumerate(zip(of, counts)):
                    weight = counted / (number[label] if average == 'classes' and counted else 1)
                    sums[0] += weight * losses[level, i].item()
                    sums[1] += weight * chance[level, i].item()
                if sums[1] > 0:
                    share = min(max(1 - sums[0] / sums[1], 0), 1)
                    trust[level] = 0.95 * trust[level] + 0.05 * share
            assert module.trust.tolist() == pytest.approx(trust, abs=1e-5)
        assert max(trust) > 1e-4

    def test_of_one_class_is_the_information_about_partners(self):
        samples, feats, found = make_samples((4, 3), classes=1), alike(), []
        for queue in (None, dict(size=4)):
            module = build(num_classes=1, queue=queue)
            run(module, feats, samples)
            found.append(module.trust)
        assert torch.equal(*found) and found[0].max() > 0

    @pytest.mark.parametrize('criterion', ['NTXentLoss', 'SupConLoss', 'PatchNCELoss'])
    def test_stays_zero_at_the_chance_level(self, criterion):
        module = build(criterion=dict(type=criterion), queue=dict(size=2))
        with torch.no_grad():
            module.projector.out[0].weight.zero_()
            module.projector.out[0].bias.fill_(1)
        for _ in range(3):
            losses = module(make_feats(3), make_samples((5, 4)))
            assert total(losses) > 0.5
        assert module.trust.abs().max() < 1e-6

    @pytest.mark.parametrize('criterion', ['NTXentLoss', 'SupConLoss', 'PatchNCELoss'])
    def test_rises_where_embeddings_tell_all_pairs_apart(self, criterion):
        module = build(
            criterion=dict(type=criterion, temperature=0.1),
            sampler=dict(type='ViewBoxes', background=0),
        )
        samples = make_samples((3,), valid_share=1.1)
        samples[0].gt_instances.labels = samples[1].gt_instances.labels = torch.arange(3)
        # all apart on the first level, on the others all alike
        rows = torch.ones(3, 6, 12, dtype=torch.double)
        rows[0] = torch.eye(12)[[0, 1, 2, 0, 1, 2]]
        module.projector = Planted(rows)
        for _ in range(100):
            module(make_feats(2), samples)
        others = 2 if criterion == 'PatchNCELoss' else 4
        share = 1 - math.log(1 + others * math.exp(-10)) / math.log(1 + others)
        assert share > 0.999
        expected = [share * (1 - 0.95**100), 0, 0]
        assert module.trust.tolist() == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize(
        'trust, factors',
        [
            # weights of the levels (in place of 1/3), times their mean say
            ((0.3, 0.0, 0.1), (3 * 0.9 * 0.082, 0.0, 3 * 0.1 * 0.082)),
            ((0.2, 0.2, 0.2), (0.04, 0.04, 0.04)),
            # the whole say of a mean over the one level that has learned
            ((0.0, 0.5, 0.0), (0.0, 0.75, 0.0)),
            ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ],
    )
    def test_weighs_the_gradient_into_the_features_alone(self, trust, factors):
        samples, results = make_samples((4, 3)), []
        for kwargs in (dict(), dict(trust=False)):
            module, feats = build(queue=dict(size=3), **kwargs), make_feats(3)
            if module.trust is not None:
                module.trust.copy_(torch.tensor(trust))
            losses = run(module, feats, samples)
            gradients = torch.autograd.grad(total(losses), [*feats, *module.parameters()])
            results.append((levels_of(losses), gradients))
        assert 'contrast_trust' not in losses
        (losses, gradients), (plain, whole) = results
        assert losses == plain
        torch.testing.assert_close(gradients[3:], whole[3:])
        for factor, mine, full in zip(factors, gradients, whole):
            assert full.abs().sum() > 0
            torch.testing.assert_close(mine, factor * full, atol=1e-7, rtol=1e-6)

    @pytest.mark.parametrize('what', ['eval', 'no negatives', 'no box', 'not finite'])
    def test_keeps_its_value(self, what):
        module = build(sampler=dict(type='ViewBoxes', background=0)).train(what != 'eval')
        module.trust.copy_(torch.tensor([0.1, 0.2, 0.3]))
        before, feats = module.trust.clone(), make_feats(3)
        if what == 'not finite':
            feats = [f.detach().fill_(float('nan')).requires_grad_() for f in feats]
        samples = make_samples(
            (0, 0) if what == 'no box' else (3, 4), classes=1 if what == 'no negatives' else 3
        )
        losses = module(feats, samples)
        assert torch.equal(module.trust, before)
        assert losses['contrast_trust'].item() == pytest.approx(0.0098 / 0.14)
        again = build()
        again.load_state_dict(module.state_dict())
        assert torch.equal(again.trust, before)

    @pytest.mark.parametrize('criterion', ['SimSiamLoss', 'PairTripletLoss'])
    def test_is_not_there_without_a_chance_level(self, criterion):
        own = dict(in_channels=5) if criterion == 'SimSiamLoss' else {}
        module, feats = build(criterion=dict(type=criterion, **own)), make_feats(3)
        losses = module(feats, make_samples((4, 3)))
        total(losses).backward()
        assert 'contrast_trust' not in losses and 'trust' not in module.state_dict()
        assert all(f.grad.abs().sum() > 0 for f in feats)
