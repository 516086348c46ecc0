import pytest
import torch
from freeze_toys import (
    EPOCH,
    Recorder,
    Toy,
    assert_frozen_until,
    keys_of,
    make_runner,
    retinanet,
    train,
)
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mmdet_contrast.engine.hooks import FreezeBackboneHook

# --- loops, optimizers and what moves weights without a gradient


@pytest.mark.parametrize(
    'optim',
    [
        dict(),
        dict(paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(head=dict(lr_mult=2.0)))),
        dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.5)),
        dict(accumulative_counts=2),
        dict(type='ToyAmpOptimWrapper'),
    ],
    ids=['momentum and decay', 'paramwise_cfg', 'AdamW', 'accumulation', 'AMP'],
)
def test_epochs(tmp_path, optim):
    runner, recorder = train(tmp_path, FreezeBackboneHook(freeze_epochs=2), optim=optim)
    keys = keys_of(runner, 'backbone')
    if 'accumulative_counts' not in optim:
        assert_frozen_until(runner, recorder, 'backbone', 2 * EPOCH)
    else:
        # the update comes with every second iteration; statistics move with every one
        assert not any(recorder.moved(k, 0, 2 * EPOCH) for k in keys)
        assert all(recorder.moved(k, 2 * EPOCH, 2 * EPOCH + 2) for k in keys)
    for key in keys_of(runner, 'neck') + keys_of(runner, 'head'):
        assert recorder.moved(key, 0, 2), key


@pytest.mark.parametrize('by_epoch', [True, False])
def test_iterations_in_the_middle_of_an_epoch(tmp_path, by_epoch):
    length = 3 if by_epoch else 4
    hook = FreezeBackboneHook(freeze_iters=3 if not by_epoch else 6)
    runner, recorder = train(tmp_path, hook, by_epoch=by_epoch, length=length)
    end = 12 if by_epoch else 4
    assert_frozen_until(runner, recorder, 'backbone', 6 if by_epoch else 3, end)
    assert all(module.training for module in runner.model.modules())


def test_gradients_that_are_zeroed_and_old_momentum_do_not_move_it(tmp_path):
    """A run that has momentum is resumed with the hook, and gradients are zeroed, not dropped."""
    train(tmp_path / 'a', length=1)

    def zero_grad(self, **kwargs):
        self.optimizer.zero_grad(set_to_none=False)

    recorder = Recorder()
    runner = make_runner(
        tmp_path / 'b',
        [FreezeBackboneHook(freeze_epochs=2), recorder],
        load_from=str(tmp_path / 'a/epoch_1.pth'),
        resume=True,
    )
    build = runner.build_optim_wrapper

    def built(config):
        wrapper = build(config)
        wrapper.zero_grad = zero_grad.__get__(wrapper)
        return wrapper

    runner.build_optim_wrapper = built
    for parameter in runner.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    runner.train()
    weight = runner.model.backbone[0][0].weight
    assert 'momentum_buffer' in runner.optim_wrapper.optimizer.state[weight]
    assert recorder.first == EPOCH
    assert_frozen_until(runner, recorder, 'backbone', 2 * EPOCH)


def test_always_and_never(tmp_path):
    runner, recorder = train(tmp_path / 'a', FreezeBackboneHook(freeze_epochs=-1), length=2)
    assert_frozen_until(runner, recorder, 'backbone', 8, end=8)
    runner, recorder = train(tmp_path / 'b', FreezeBackboneHook(freeze_epochs=0), length=2)
    assert_frozen_until(runner, recorder, 'backbone', 0, end=8)


@pytest.mark.parametrize('order', [1, -1])
def test_stages(tmp_path, order):
    hooks = [
        FreezeBackboneHook(freeze_epochs=-1, modules='neck'),
        FreezeBackboneHook(freeze_iters=6, modules=['backbone.0']),
        FreezeBackboneHook(freeze_epochs=1, modules='backbone.1'),
    ]
    runner, recorder = train(tmp_path, *hooks[::order], length=2)
    assert_frozen_until(runner, recorder, 'neck', 8, end=8)
    assert_frozen_until(runner, recorder, 'backbone.0', 6, end=8)
    assert_frozen_until(runner, recorder, 'backbone.1', EPOCH, end=8)


@pytest.mark.parametrize('order', [1, -1])
def test_two_hooks_for_the_same_parameters_are_refused(tmp_path, order):
    hooks = [FreezeBackboneHook(3), FreezeBackboneHook(5, modules='backbone.0')][::order]
    with pytest.raises(ValueError, match='two such hooks freeze backbone.0.0.weight'):
        train(tmp_path, *hooks)


def test_mode_that_the_backbone_gives_itself_is_kept(tmp_path):
    """With norm_eval=True, ResNet's statistics stand still after unfreezing, too."""
    init_default_scope('mmdet')
    # four channels may all be dead by chance, and then nothing moves
    torch.manual_seed(0)
    model = Toy()
    model.backbone = MODELS.build(
        dict(
            type='ResNet',
            depth=18,
            base_channels=4,
            num_stages=1,
            strides=(1,),
            dilations=(1,),
            out_indices=(0,),
            frozen_stages=-1,
        )
    )
    forward = model.backbone.forward
    model.backbone.forward = lambda x: forward(x)[0]
    hook = FreezeBackboneHook(freeze_iters=2, modules='backbone.layer1')
    runner, recorder = train(tmp_path, hook, model=model, length=1)
    for key in keys_of(runner, 'backbone.layer1'):
        assert recorder.moved(key, 0, 4) == key.endswith(('weight', 'bias')), key


# --- what frozen means


def test_no_gradient_no_dropout_and_no_activations(tmp_path):
    """What autograd keeps, in a frozen and in a trained iteration."""
    kept, modes, features = {}, {}, {}

    class Watch(Recorder):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            super().before_train_iter(runner, batch_idx)
            found = kept.setdefault(runner.iter, [])
            modes[runner.iter] = {m.training for m in runner.model.backbone.modules()}
            self.hooks = torch.autograd.graph.saved_tensors_hooks(
                lambda t: found.append(t.numel()) or t, lambda t: t
            )
            forward = runner.model.backbone.forward

            def watched(x):
                with self.hooks:
                    features[runner.iter] = forward(x)
                return features[runner.iter]

            runner.model.backbone.forward = watched
            self.forward = forward

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            runner.model.backbone.forward = self.forward

    train(tmp_path, FreezeBackboneHook(freeze_epochs=1), Watch(), length=2)
    assert [bool(kept[i]) for i in range(8)] == [False] * 4 + [True] * 4
    assert [features[i].requires_grad for i in range(8)] == [False] * 4 + [True] * 4
    assert all(modes[i] == {False} for i in range(4)) and all(modes[i] == {True} for i in (4, 7))


def test_the_mode_is_set_once_an_epoch_and_after_each_validation(tmp_path):
    """Walking through a backbone takes milliseconds: not in each iteration."""
    calls, modes = [], []

    class Watch(Recorder):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            modes.append({m.training for m in runner.model.backbone.modules()})
            if runner.iter == 5:
                # as a hook that looks at the model in the middle of an epoch does
                runner.model.eval()
                runner.model.train()

    runner = make_runner(tmp_path, [FreezeBackboneHook(freeze_epochs=-1), Watch()], length=2)
    walk = runner.model.backbone.eval
    runner.model.backbone.eval = lambda: calls.append(runner.iter) or walk()
    runner.train()
    # in before_train, at the beginning of both epochs, and after iteration 5
    assert calls == [0, 0, 4, 6] and modes == [{False}] * 8


@pytest.mark.parametrize(
    ('ema', 'exact'),
    [
        (dict(momentum=0.1), True),
        (dict(momentum=0.1, update_buffers=True), True),
        # MMDetection's own adds two products, which rounds
        (dict(ema_type='ExpMomentumEMA', momentum=0.1, gamma=5, update_buffers=True), False),
    ],
)
def test_average_of_weights(tmp_path, ema, exact):
    averages = []

    class Watch(Recorder):
        def after_train_epoch(self, runner):
            hook = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
            state = hook.ema_model.module.state_dict()
            averages.append({k: v.clone() for k, v in state.items()})

    hooks = (dict(type='EMAHook', **ema), FreezeBackboneHook(freeze_epochs=2), Watch())
    runner, recorder = train(tmp_path, *hooks, length=3)
    assert_frozen_until(runner, recorder, 'backbone', 2 * EPOCH, end=12)
    close = dict(rtol=0, atol=0) if exact else dict(rtol=1e-5, atol=1e-6)
    for key in keys_of(runner, 'backbone'):
        for average in averages[:2]:
            torch.testing.assert_close(average[key], recorder.states[-1][key], **close, msg=key)
        if 'num_batches' not in key:
            assert not torch.equal(averages[2][key], averages[1][key]), key


# --- resuming


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('at', [1, 2, 3], ids=['before', 'at', 'after'])
def test_resumed_run_is_the_uninterrupted_one(tmp_path, at, by_epoch):
    def run(name, **kwargs):
        key = 'freeze_epochs' if by_epoch else 'freeze_iters'
        stages = [{'modules': 'backbone', key: 2}, {'modules': 'neck', key: 1}]
        found = [dict(type='EMAHook', momentum=0.1), *(FreezeBackboneHook(**x) for x in stages)]
        # a lower rate for what trains later is MMEngine's
        optim = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))))
        schedule = [dict(type='LinearLR', start_factor=0.1, end=9, by_epoch=False)]
        return train(
            tmp_path / name,
            *found,
            by_epoch=by_epoch,
            length=4,
            optim=optim,
            param_scheduler=schedule,
            **kwargs,
        )

    whole, expected = run('whole')
    checkpoint = tmp_path / 'whole' / f'{"epoch" if by_epoch else "iter"}_{at}.pth'
    resumed, found = run('resumed', load_from=str(checkpoint), resume=True)
    assert found.first == at * (EPOCH if by_epoch else 1)
    end = max(found.states)
    assert end == max(expected.states)
    for i in range(found.first, end + 1):
        for key, value in expected.states[i].items():
            assert torch.equal(found.states[i][key], value), (i, key)
    last = [
        torch.load(tmp_path / name / checkpoint.name.replace(str(at), '4'), weights_only=False)
        for name in ('whole', 'resumed')
    ]
    for key, value in last[0]['ema_state_dict'].items():
        assert torch.equal(last[1]['ema_state_dict'][key], value), key


# --- the log


def test_log_says_what_and_how_much(tmp_path, monkeypatch):
    hooks = [
        FreezeBackboneHook(1, modules=('neck',)),
        FreezeBackboneHook(modules=('backbone.0',), freeze_iters=6),
        FreezeBackboneHook(-1, modules='backbone.1'),
    ]
    runner = make_runner(tmp_path, hooks, length=2)
    said = []
    monkeypatch.setattr(runner.logger, 'info', lambda text, *args: said.append(text))
    runner.train()
    said = [text for text in said if text.startswith('FreezeBackboneHook:')]
    # 3 x 3 kernels and biases of 4 channels, weights and biases of the normalisation
    first, other = (3 * 4 * 9 + 4) + 8, (4 * 4 * 9 + 4) + 8
    assert said == [
        f'FreezeBackboneHook: froze neck: {other} parameters in 4 tensors until epoch 1 (epoch '
        '0, iteration 0).',
        f'FreezeBackboneHook: froze backbone.0: {first} parameters in 4 tensors until iteration 6 '
        '(epoch 0, iteration 0).',
        f'FreezeBackboneHook: froze backbone.1: {other} parameters in 4 tensors for good (epoch '
        '0, iteration 0).',
        f'FreezeBackboneHook: unfroze neck: {other} parameters in 4 tensors (epoch 1, iteration '
        '4).',
        f'FreezeBackboneHook: unfroze backbone.0: {first} parameters in 4 tensors (epoch 1, '
        'iteration 6).',
    ]


# --- MMDetection's detectors

# ResNet's blocks begin as the identity: what is inside gets no gradient in the first iteration.


@pytest.mark.parametrize('by_epoch', [True, False])
def test_retinanet_with_validation_in_between(tiny_shapes, tmp_path, by_epoch):
    length = dict(freeze_epochs=1) if by_epoch else dict(freeze_iters=3)
    hook = dict(type='FreezeBackboneHook', **length)
    runner = retinanet(tiny_shapes, tmp_path, hook, by_epoch=by_epoch)
    runner.train()
    recorder = next(h for h in runner.hooks if isinstance(h, Recorder))
    assert_frozen_until(runner, recorder, 'backbone', 3, end=6, at_once=False)


def test_frozen_stages_of_the_backbone(tiny_shapes, tmp_path):
    hook = dict(type='FreezeBackboneHook', freeze_epochs=1)
    with pytest.raises(ValueError, match='set frozen_stages=-1 in the backbone'):
        retinanet(tiny_shapes, tmp_path / 'a', hook, frozen_stages=1).train()
    # what they do not freeze may be frozen and trained
    layer = dict(hook, modules=('backbone.layer3',))
    runner = retinanet(tiny_shapes, tmp_path / 'b', layer, frozen_stages=1)
    runner.train()
    recorder = next(h for h in runner.hooks if isinstance(h, Recorder))
    assert_frozen_until(runner, recorder, 'backbone.layer3', 3, end=6, at_once=False)
    assert not any(recorder.moved(k, 0, 6) for k in keys_of(runner, 'backbone.layer1'))


# --- what would silently train nothing later


def test_name_that_matches_nothing(tmp_path):
    with pytest.raises(ValueError, match="no module 'bakbone'.*did you mean backbone"):
        train(tmp_path, FreezeBackboneHook(modules=('bakbone',)))


def test_epochs_in_a_loop_of_iterations(tmp_path):
    with pytest.raises(ValueError, match='freeze_iters instead'):
        train(tmp_path, FreezeBackboneHook(freeze_epochs=2), by_epoch=False)


def test_frozen_when_the_optimizer_was_built(tmp_path):
    """With paramwise_cfg, such parameters are left out, and unfreezing would train nothing."""
    runner = make_runner(
        tmp_path, [FreezeBackboneHook()], optim=dict(paramwise_cfg=dict(norm_decay_mult=0.0))
    )
    runner.model.backbone.requires_grad_(False)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.model.backbone.requires_grad_(True)
    with pytest.raises(ValueError, match='does not hold it'):
        runner.train()


def test_frozen_by_the_model_itself(tmp_path):
    model = Toy()
    model.neck.requires_grad_(False)
    with pytest.raises(ValueError, match='neck later, but no parameter in it needs a gradient'):
        train(tmp_path, FreezeBackboneHook(modules='neck'), model=model)
    # a part that the model keeps frozen is left as it is
    model = Toy()
    model.backbone[0][1].requires_grad_(False)
    runner, recorder = train(tmp_path, FreezeBackboneHook(1), model=model, length=2)
    assert not recorder.moved('backbone.0.1.weight', 0, 8)
    assert recorder.moved('backbone.0.0.weight', 4, 8)


def test_backbone_that_freezes_stages_in_train_only(tmp_path):
    """YOLOX's does not freeze before ``train()`` is called."""
    init_default_scope('mmdet')
    model = Toy()
    model.backbone = MODELS.build(dict(type='CSPDarknet', frozen_stages=1))
    assert all(p.requires_grad for p in model.backbone.parameters())
    with pytest.raises(ValueError, match='train\\(\\) of the model freezes it'):
        train(tmp_path, FreezeBackboneHook(), model=model)
