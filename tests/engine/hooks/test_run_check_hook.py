"""Runs that are refused before their first iteration, whichever program starts them."""

from types import SimpleNamespace as Part

import pytest
import torch
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.registry import HOOKS, MODELS
from mmengine.model import BaseTTAModel
from torch import nn

from mmdet_contrast.engine.hooks.run_check_hook import check_dataset, check_heads, check_linear
from mmdet_contrast.models.selfsup import LinearClassifier
from mmdet_contrast.utils.config import LaunchError


class ToyDataset:
    def __init__(self, cat_ids, classes, ann_file, length=1):
        self.cat_ids, self.metainfo, self.ann_file = cat_ids, dict(classes=classes), ann_file
        self.length = length

    def __len__(self):
        return self.length


class ToyTTA(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        raise NotImplementedError


def labelled(*classes, early=()):
    """Data of a linear evaluation."""
    steps = [LoadImageFromFile(), *early, LoadAnnotations(with_bbox=True), PackDetInputs()]
    return Part(metainfo=dict(classes=classes), pipeline=Compose(steps))


def classifier():
    backbone = dict(type='mmdet.ResNet', depth=18, base_channels=4)
    return LinearClassifier(backbone, num_classes=2, in_channels=32)


def runner_of(model, resume=False, **loops):
    """A runner with loops of these data sets; those that are not named it does not have."""
    runner = Part(
        model=model, cfg=dict(resume=resume), train_loop=None, val_loop=None, test_loop=None
    )
    for name, data in loops.items():
        setattr(runner, f'{name}_loop', Part(dataloader=Part(dataset=data)))
    return runner


@pytest.fixture
def hook():
    return HOOKS.build(dict(type='mmdet.RunCheckHook'))


# ------------------------------------------------------------------------------------ data, heads


def test_classes_are_those_of_the_annotation_file(tmp_path):
    file = tmp_path / 'x.json'
    file.write_text('{"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}')
    good = ToyDataset([1, 2], ('cat', 'dog'), str(file))
    bad = ToyDataset([1], ('cat', 'dgo'), str(file))
    check_dataset(None, 'val_dataloader')
    check_dataset(good, 'train_dataloader')
    check_dataset(Part(dataset=Part(datasets=[good])), 'train_dataloader')
    for dataset in (bad, Part(dataset=bad), Part(datasets=[good, bad])):
        with pytest.raises(LaunchError, match=r"train_dataloader: .*'dgo'.*among \('cat', 'dog'\)"):
            check_dataset(dataset, 'train_dataloader')

    class OwnType(ToyDataset):
        METAINFO = dict(classes=('dog', 'cat'))

    # names of one's own type are no promise about one's files
    for kind in (ToyDataset, OwnType):
        with pytest.raises(LaunchError, match=r"has \('cat', 'dog'\) in this order"):
            check_dataset(kind([1, 2], ('dog', 'cat'), str(file)), 'train_dataloader')
    with pytest.raises(LaunchError, match='val_dataloader: no image of .* is left'):
        check_dataset(ToyDataset([1], ('cat',), None, length=0), 'val_dataloader')


def test_a_head_has_all_classes_of_concatenated_data():
    head = MODELS.build(dict(type='mmdet.RetinaHead', num_classes=2, in_channels=8))
    data = Part(metainfo=[dict(classes=('a',)), dict(classes=('a', 'b', 'c')), dict()])
    check_heads(nn.Sequential(head), Part(metainfo=dict(classes=('a', 'b'))), 'train_dataloader')
    with pytest.raises(LaunchError, match='num_classes=2, but train_dataloader has the 3 classes'):
        check_heads(nn.Sequential(head), data, 'train_dataloader')


# ----------------------------------------------------------------------------- linear evaluation


def test_linear_evaluation_reads_boxes_right_after_the_image():
    model, resize = classifier(), Resize(scale=(8, 8))
    good, bad = labelled('a'), labelled('a', early=[resize])
    crops = Part(whole_images=True, dataset=bad, metainfo={})
    for dataset in (
        good,
        Part(pipeline=[resize], dataset=good),
        crops,
        Part(datasets=[good]),
        None,
    ):
        check_linear(model, dict(val_dataloader=dataset))
    for dataset in (bad, Part(dataset=Part(datasets=[good, bad]))):
        with pytest.raises(LaunchError, match='val_dataloader: .* has Resize before LoadAnnot'):
            check_linear(ToyTTA(model), dict(train_dataloader=good, val_dataloader=dataset))
    assert not check_linear(nn.Identity(), dict(val_dataloader=bad))


def test_linear_evaluation_has_one_list_of_classes(hook):
    model = classifier()
    hook.before_train(runner_of(model, train=labelled('a', 'b'), val=labelled('a', 'b')))
    hook.before_train(runner_of(model, train=labelled('a', 'b')))
    shifted = dict(train=labelled('a', 'b'), val=labelled('b'))
    with pytest.raises(LaunchError, match=r"train_dataloader has .* and val_dataloader .*\['b'\]"):
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
