"""Learning rates beside the scheduled one, across resuming."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmdet_contrast.engine.hooks import BiasWarmupHook, ConstantLRHook

ITERATIONS = 3
BY_ITER = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, convert_to_iter_based=True),
]
BY_EPOCH = [dict(type='MultiStepLR', milestones=[1, 3], by_epoch=True)]
SCHEDULES = pytest.mark.parametrize('schedule', [BY_ITER, BY_EPOCH], ids=['by_iter', 'by_epoch'])
# groups of their own for the biases, and for the predictor
GROUPS = dict(bias_decay_mult=0.0, custom_keys=dict(predictor=dict(lr_mult=1.0)))


class Toy(BaseModel):
    """Remembers the learning rate of each parameter at each update."""

    def __init__(self):
        super().__init__()
        self.body, self.predictor = nn.Linear(2, 2), nn.Linear(2, 2)
        self.seen = []

    def forward(self, x, mode='tensor'):
        return dict(loss=self.predictor(self.body(x.float())).square().mean())

    def train_step(self, data, optim_wrapper):
        names = {p: name for name, p in self.named_parameters()}
        groups = optim_wrapper.optimizer.param_groups
        self.seen.append({names[p]: group['lr'] for group in groups for p in group['params']})
        return super().train_step(dict(x=torch.stack(list(data))), optim_wrapper)

    def rates(self, name):
        return [seen[name] for seen in self.seen]


def train(work_dir, *hooks, schedule=BY_ITER, groups=GROUPS, **options):
    runner = Runner(
        model=Toy(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[torch.ones(2)] * 2 * ITERATIONS,
            batch_size=2,
            sampler=dict(type='DefaultSampler'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=4),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.5, momentum=0.9, weight_decay=0.1), paramwise_cfg=groups
        ),
        param_scheduler=schedule,
        custom_hooks=list(hooks),
        experiment_name=work_dir.name,
        **options,
    )
    runner.train()
    return runner.model


@SCHEDULES
def test_the_predictor_is_constant_and_the_rest_as_without_the_hook(schedule, tmp_path):
    ours = train(tmp_path / 'a', ConstantLRHook(['predictor']), schedule=schedule)
    stock = train(tmp_path / 'b', schedule=schedule)
    assert ours.rates('predictor.weight') == ours.rates('predictor.bias') == [0.5] * 12
    body = ours.rates('body.weight')
    assert body == stock.rates('body.weight')
    assert len(set(body)) > 2 and body[-1] < 0.1


@SCHEDULES
def test_biases_fall_to_the_scheduled_rate_and_the_rest_is_as_without_the_hook(schedule, tmp_path):
    ours = train(tmp_path / 'a', BiasWarmupHook(start_lr=2.0, epochs=2), schedule=schedule)
    stock = train(tmp_path / 'b', schedule=schedule)
    # 6 iterations of warm-up, from 2 to the base learning rate of 0.5
    expected = [2.0 + i / 6 * (0.5 - 2.0) for i in range(6)]
    assert ours.rates('body.bias')[:6] == pytest.approx(expected)
    assert ours.rates('body.bias')[6:] == pytest.approx(stock.rates('body.bias')[6:])
    assert ours.rates('body.weight') == pytest.approx(stock.rates('body.weight'))


@pytest.mark.parametrize(('lr_mult', 'start'), [(0.0, 0.0), (0.1, 0.2), (2.0, 4.0)])
def test_lr_mult_holds_for_the_biases_too(lr_mult, start, tmp_path):
    groups = dict(bias_decay_mult=0.0, custom_keys=dict(body=dict(lr_mult=lr_mult)))
    ours = train(tmp_path, BiasWarmupHook(start_lr=2.0, epochs=2), groups=groups)
    expected = [start + i / 6 * (0.5 * lr_mult - start) for i in range(6)]
    assert ours.rates('body.bias')[:6] == pytest.approx(expected)
    assert ours.rates('predictor.bias')[0] == 2.0


def test_the_rate_that_biases_begin_at_is_not_scaled_with_the_batch(tmp_path):
    hook = BiasWarmupHook(start_lr=2.0, epochs=2)
    ours = train(tmp_path, hook, auto_scale_lr=dict(base_batch_size=8, enable=True))
    # two images in place of eight: 0.125 in place of 0.5
    expected = [2.0 + i / 6 * (0.125 - 2.0) for i in range(6)]
    assert ours.rates('body.bias')[:6] == pytest.approx(expected)


@SCHEDULES
def test_a_resumed_run_goes_on_as_the_whole_one(schedule, tmp_path):
    hooks = [ConstantLRHook(), BiasWarmupHook(start_lr=2.0, epochs=3)]
    whole = train(tmp_path / 'whole', *hooks, schedule=schedule)
    checkpoint = str(tmp_path / 'whole/epoch_2.pth')
    resumed = train(
        tmp_path / 'resumed', *hooks, schedule=schedule, load_from=checkpoint, resume=True
    )
    assert len(resumed.seen) == 6
    for ours, theirs in zip(resumed.seen, whole.seen[6:]):
        assert ours == pytest.approx(theirs)


def test_without_a_scheduler_nothing_changes(tmp_path):
    ours = train(tmp_path, ConstantLRHook(), schedule=None)
    assert all(set(seen.values()) == {0.5} for seen in ours.seen)


def test_biases_fall_without_a_scheduler_too(tmp_path):
    ours = train(tmp_path, BiasWarmupHook(start_lr=2.0, epochs=1), schedule=None)
    assert ours.rates('body.bias') == pytest.approx([2.0, 1.5, 1.0] + [0.5] * 9)
    assert set(ours.rates('body.weight')) == {0.5}


def test_refuses_what_has_no_group_of_its_own(tmp_path):
    with pytest.raises(ValueError, match='no module .projector.'):
        train(tmp_path / 'a', ConstantLRHook(['projector']))
    with pytest.raises(ValueError, match='paramwise_cfg=dict.custom_keys='):
        train(tmp_path / 'b', ConstantLRHook(), groups=None)
    with pytest.raises(ValueError, match='paramwise_cfg=dict.bias_decay_mult'):
        train(tmp_path / 'c', BiasWarmupHook(), groups=None)
