import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmdet_contrast.engine.hooks import BiasWarmupHook


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, *x, mode='tensor'):
        return dict(loss=self.norm(self.linear(torch.stack(x))).square().sum())


def make_runner(tmp_path, hook, paramwise=True, max_epochs=3, **kwargs):
    data = [torch.rand(2) for _ in range(8)]
    paramwise_cfg = dict(bias_decay_mult=0.0, norm_decay_mult=0.0) if paramwise else None
    return Runner(
        model=Toy(),
        work_dir=str(tmp_path),
        train_dataloader=DataLoader(data, batch_size=2, collate_fn=list),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0),
            paramwise_cfg=paramwise_cfg,
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=1e-5, begin=0, end=8, by_epoch=False),
            dict(type='LinearLR', start_factor=1.0, end_factor=0.1, begin=2, end=3, by_epoch=True),
        ],
        custom_hooks=[hook, *kwargs.pop('hooks', [])],
        default_hooks=dict(logger=None),
        experiment_name=f'bias-warmup-{tmp_path.name}',
        default_scope='mmdet',
        **kwargs,
    )


class Recorder:
    """What the optimizer used, by iteration: the learning rates of weights and of biases."""

    def __init__(self, runner):
        self.weights, self.biases = [], []
        optimizer = runner.optim_wrapper.optimizer
        step = optimizer.step
        names = {id(p): name for name, p in runner.model.named_parameters()}

        def recorded(*args, **kwargs):
            rates = {names[id(g['params'][0])]: g['lr'] for g in optimizer.param_groups}
            self.weights.append(rates['linear.weight'])
            self.biases.append(rates['linear.bias'])
            assert rates['norm.bias'] == rates['linear.bias']
            assert rates['norm.weight'] == rates['linear.weight']
            return step(*args, **kwargs)

        optimizer.step = recorded


def train(tmp_path, hook, **kwargs):
    runner = make_runner(tmp_path, hook, **kwargs)
    recorders = []
    start = runner.call_hook

    def call_hook(name, **arguments):
        start(name, **arguments)
        if name == 'before_train':
            recorders.append(Recorder(runner))

    runner.call_hook = call_hook
    runner.train()
    return recorders[0]


def test_biases_fall_while_weights_rise_and_the_schedule_goes_on(tmp_path):
    with_hook = train(tmp_path / 'a', BiasWarmupHook(start_lr=0.1, epochs=2))
    without = train(tmp_path / 'b', BiasWarmupHook(start_lr=0.1, epochs=0))
    # 8 iterations of warm-up, from 0.1 to the base learning rate of 0.01
    expected = [0.1 + i / 8 * (0.01 - 0.1) for i in range(8)]
    assert with_hook.biases[:8] == pytest.approx(expected)
    assert with_hook.biases[8:] == with_hook.weights[8:] == pytest.approx(without.weights[8:])
    assert with_hook.weights == pytest.approx(without.weights)
    assert without.biases == without.weights


def test_at_least_so_many_iterations(tmp_path):
    recorder = train(tmp_path, BiasWarmupHook(start_lr=0.1, epochs=0, min_iters=4))
    expected = [0.1 + i / 4 * (0.01 - 0.1) for i in range(4)]
    assert recorder.biases[:4] == pytest.approx(expected)
    assert recorder.biases[4] == recorder.weights[4]


def test_biases_in_a_group_with_weights_are_refused(tmp_path):
    runner = make_runner(tmp_path, BiasWarmupHook(), paramwise=False)
    with pytest.raises(ValueError, match='paramwise_cfg=dict'):
        runner.train()


def test_is_registered():
    assert HOOKS.get('BiasWarmupHook') is BiasWarmupHook
