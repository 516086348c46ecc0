"""What FreezeBackboneHook refuses before training."""

import sys
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mmdet_contrast.engine.hooks import FreezeBackboneHook

sys.path.insert(0, str(Path(__file__).parent))
from freeze_toys import (  # noqa: E402
    Recorder,
    Toy,
    assert_frozen_until,
    keys_of,
    make_runner,
    retinanet,
    train,
)


@pytest.mark.parametrize(
    ('name', 'listed'),
    [
        ('bakbone', 'the model has data_preprocessor, backbone, neck, head .*similar.*backbone'),
        ('backbone.2', "'backbone' has 0, 1"),
        ('neck.0.weight', "'neck.0' has no modules in it"),
        ('back', 'matches nothing'),
        ('neck.2', 'ReLU without parameters'),
    ],
)
def test_name_that_matches_nothing(tmp_path, name, listed):
    with pytest.raises(ValueError, match=listed):
        train(tmp_path, FreezeBackboneHook(modules=(name,)))


def test_epochs_in_a_loop_of_iterations(tmp_path):
    with pytest.raises(ValueError, match='freeze_iters instead'):
        train(tmp_path, FreezeBackboneHook(freeze_epochs=2), by_epoch=False)
    hook = FreezeBackboneHook(freeze_epochs=-1)
    runner, recorder = train(tmp_path, hook, by_epoch=False, length=2)
    assert_frozen_until(runner, recorder, 'backbone', 2, end=2)


def test_nothing_left_to_train(tmp_path):
    with pytest.raises(ValueError, match='leaves no parameter'):
        train(tmp_path, FreezeBackboneHook(modules=('backbone', 'neck', 'head')))


def test_frozen_when_the_optimizer_was_built(tmp_path):
    """With paramwise_cfg, such parameters are left out, and unfreezing would train nothing."""
    runner = make_runner(
        tmp_path, [FreezeBackboneHook()], optim=dict(paramwise_cfg=dict(norm_decay_mult=0.0))
    )
    runner.model.backbone.requires_grad_(False)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.model.backbone.requires_grad_(True)
    with pytest.raises(ValueError, match='does not hold them'):
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


def test_frozen_stages_of_the_backbone(tiny_shapes, tmp_path):
    hook = dict(type='FreezeBackboneHook', freeze_epochs=1)
    with pytest.raises(ValueError, match=r'set model\.backbone\.frozen_stages=-1 .*norm_eval'):
        retinanet(tiny_shapes, tmp_path / 'a', hook, frozen_stages=1).train()
    # what they do not freeze may be frozen and trained, and all may be frozen for good
    layer = dict(hook, modules=('backbone.layer3',))
    runner = retinanet(tiny_shapes, tmp_path / 'b', layer, frozen_stages=1)
    runner.train()
    recorder = next(h for h in runner.hooks if isinstance(h, Recorder))
    assert_frozen_until(runner, recorder, 'backbone.layer3', 3, end=6, at_once=False)
    assert not any(recorder.moved(k, 0, 6) for k in keys_of(runner, 'backbone.layer1'))
    always = dict(hook, freeze_epochs=-1)
    runner = retinanet(tiny_shapes, tmp_path / 'c', always, max_epochs=1, frozen_stages=1)
    runner.train()
    recorder = next(h for h in runner.hooks if isinstance(h, Recorder))
    assert_frozen_until(runner, recorder, 'backbone', 3, end=3)


def test_backbone_that_freezes_stages_in_train_only(tmp_path):
    """YOLOX's does not freeze before ``train()`` is called."""
    init_default_scope('mmdet')
    model = Toy()
    model.backbone = MODELS.build(dict(type='CSPDarknet', frozen_stages=1))
    assert all(p.requires_grad for p in model.backbone.parameters())
    with pytest.raises(ValueError, match=r'backbone\.frozen_stages=1 freezes them again'):
        train(tmp_path, FreezeBackboneHook(), model=model)
