"""Data that a run of a linear evaluation is refused for; whole runs: test_linear_classifier.py."""

from types import SimpleNamespace as Part

import pytest
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.registry import HOOKS
from torch import nn

from mmdet_contrast.models.selfsup import LinearClassifier
from mmdet_contrast.utils.launch_checks import LaunchError


def dataset(*classes, early=()):
    steps = [LoadImageFromFile(), *early, LoadAnnotations(with_bbox=True), PackDetInputs()]
    return Part(metainfo=dict(classes=classes), pipeline=Compose(steps))


def runner_of(model=None, **loops):
    """A runner with loops of these data sets; those that are not named it does not have."""
    if model is None:
        model = LinearClassifier(
            dict(type='mmdet.ResNet', depth=18, base_channels=4), num_classes=2, in_channels=32
        )
    runner = Part(model=model, train_loop=None, val_loop=None, test_loop=None)
    for name, data in loops.items():
        setattr(runner, f'{name}_loop', Part(dataloader=Part(dataset=data)))
    return runner


@pytest.fixture
def hook():
    return HOOKS.build(dict(type='mmdet.LinearCheckHook'))


def test_training_and_validation_data_have_one_list_of_classes(hook):
    hook.before_train(runner_of(train=dataset('a', 'b'), val=dataset('a', 'b')))
    hook.before_train(runner_of(train=dataset('a', 'b')))
    shifted = dict(train=dataset('a', 'b'), val=dataset('b'))
    with pytest.raises(LaunchError, match=r"train_dataloader has .* and val_dataloader .*\['b'\]"):
        hook.before_train(runner_of(**shifted))
    hook.before_train(runner_of(nn.Identity(), **shifted))


@pytest.mark.parametrize('run', ['train', 'val', 'test'])
def test_every_run_looks_at_the_order_of_its_pipeline(hook, run):
    late = dataset('a', early=[Resize(scale=(8, 8))])
    getattr(hook, f'before_{run}')(runner_of(**{run: dataset('a')}))
    with pytest.raises(LaunchError, match=f'^{run}_dataloader: .* Resize before LoadAnnotations'):
        getattr(hook, f'before_{run}')(runner_of(**{run: late}))
    getattr(hook, f'before_{run}')(runner_of(nn.Identity(), **{run: late}))


@pytest.mark.parametrize('run', ['val', 'test'])
def test_data_are_those_that_the_checkpoint_was_trained_with(hook, run):
    trained, before = dict(meta=dict(dataset_meta=dict(classes=('a', 'b')))), f'before_{run}'
    shifted = runner_of(train=dataset('b'), **{run: dataset('b')})
    hook.after_load_checkpoint(shifted, trained)
    getattr(hook, before)(runner_of(**{run: dataset('a', 'b')}))
    with pytest.raises(LaunchError, match=rf"{run}_dataloader has .*\['b'\].*with \['a', 'b'\]"):
        getattr(hook, before)(shifted)
    getattr(hook, before)(runner_of(nn.Identity(), **{run: dataset('b')}))
    # a training begins with the classes of its own data
    hook.before_train(shifted)
    getattr(hook, before)(shifted)
    # weights alone say nothing of classes
    hook.after_load_checkpoint(shifted, dict(state_dict={}))
    getattr(hook, before)(shifted)
