"""Runs that are refused before their first iteration, whichever program starts them."""

from types import SimpleNamespace as Part

import pytest
import torch
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmdet.registry import HOOKS
from torch import nn

from mmdet_contrast.models.selfsup import LinearClassifier
from mmdet_contrast.utils.config import LaunchError


def labelled(*classes):
    """Data of a linear evaluation."""
    steps = [LoadImageFromFile(), LoadAnnotations(with_bbox=True), PackDetInputs()]
    return Part(metainfo=dict(classes=classes), pipeline=Compose(steps))


def classifier():
    backbone = dict(type='mmdet.ResNet', depth=18, base_channels=4)
    return LinearClassifier(backbone, num_classes=2, in_channels=32)


def runner_of(model, resume=False, **loops):
    """A runner with loops of these data sets; those that are not named it does not have."""
    runner = Part(model=model, cfg=dict(resume=resume), hooks=[], logger=None, work_dir='')
    runner.train_loop = runner.val_loop = runner.test_loop = None
    for name, data in loops.items():
        setattr(runner, f'{name}_loop', Part(dataloader=Part(dataset=data)))
    return runner


def misnamed(classes):
    """A loader whose classes are a string, not a list."""
    return dict(dataset=dict(type='mmdet.CocoDataset', metainfo=dict(classes=classes)))


@pytest.fixture
def hook():
    return HOOKS.build(dict(type='mmdet.RunCheckHook'))


# ----------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize('mode', ['train', 'val', 'test'])
def test_configs_are_checked_before_they_are_built_and_once(hook, mode):
    runner = runner_of(nn.Identity())
    # a runner of somebody else, that announces nothing
    runner.cfg[f'{mode}_dataloader'] = misnamed('cat')
    runner.pending = {f'{mode}_dataloader': misnamed('dog')}
    before = getattr(hook, f'before_{mode}')
    with pytest.raises(LaunchError, match="classes='cat', a string"):
        before(runner)
    with pytest.raises(LaunchError, match="classes='dog', a string"):
        hook.before_build(runner, mode)
    runner.pending = {}
    hook.before_build(runner, mode)
    before(runner)


def test_validation_within_a_training_is_checked_with_it(hook):
    runner = runner_of(nn.Identity())
    hook.before_train(runner)
    runner.cfg['val_dataloader'] = misnamed('cat')
    hook.before_val(runner)


# ----------------------------------------------------------------------------- linear evaluation


def test_linear_evaluation_has_one_list_of_classes(hook):
    model = classifier()
    hook.before_train(runner_of(model, train=labelled('a', 'b'), val=labelled('a', 'b')))
    hook.before_train(runner_of(model, train=labelled('a', 'b')))
    shifted = dict(train=labelled('a', 'b'), val=labelled('b'))
    with pytest.raises(LaunchError, match=r"train_dataloader has .* and val_dataloader \('b',\)"):
        hook.before_train(runner_of(model, **shifted))
    hook.before_train(runner_of(nn.Identity(), **shifted))


@pytest.mark.parametrize('run', ['val', 'test'])
def test_linear_evaluation_has_the_classes_of_the_checkpoint(hook, run):
    before = getattr(hook, f'before_{run}')
    model = classifier()
    trained = dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=('a', 'b'))))
    shifted = runner_of(model, train=labelled('b'), **{run: labelled('b')})
    hook.after_load_checkpoint(shifted, trained)
    before(runner_of(model, **{run: labelled('a', 'b')}))
    with pytest.raises(LaunchError, match=rf"{run}_dataloader has .*\['b'\].*with \['a', 'b'\]"):
        before(shifted)
    # a training begins with the classes of its own data
    hook.before_train(shifted)
    before(shifted)


# ------------------------------------------------------------------------------------- checkpoint


def test_a_checkpoint_that_is_tested_or_resumed_fills_the_model(hook):
    model, half = nn.Linear(2, 2), dict(state_dict=dict(weight=torch.zeros(2, 2)))
    for run in ('val', 'test'):
        hook.after_load_checkpoint(runner_of(model), half)
        with pytest.raises(LaunchError, match='does not fit .*: bias is not in it'):
            getattr(hook, f'before_{run}')(runner_of(model))
    # to begin a training with a part of the weights is common
    hook.before_train(runner_of(model))
    hook.before_val(runner_of(model))
    with pytest.raises(LaunchError, match='does not fit .*: bias is not in it'):
        hook.after_load_checkpoint(runner_of(model, resume=True), half)


def test_classes_of_a_checkpoint_in_another_order_are_refused(hook):
    model, swapped = nn.Linear(2, 2), Part(metainfo=dict(classes=('dog', 'cat')))
    meta = dict(dataset_meta=dict(classes=('cat', 'dog')))
    checkpoint = dict(state_dict=model.state_dict(), meta=meta)
    for name in ('val', 'test'):
        hook.after_load_checkpoint(runner_of(model), checkpoint)
        with pytest.raises(LaunchError, match=rf'{name}_dataloader has the classes .*dog'):
            getattr(hook, f'before_{name}')(runner_of(model, **{name: swapped}))
    resumed = runner_of(model, resume=True, train=swapped)
    hook.after_load_checkpoint(resumed, checkpoint)
    with pytest.raises(LaunchError, match='train_dataloader has the classes'):
        hook.before_train(resumed)
    started = runner_of(model, train=swapped)
    hook.after_load_checkpoint(started, checkpoint)
    hook.before_train(started)
