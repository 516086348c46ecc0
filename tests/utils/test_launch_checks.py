from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from torch.utils.data import DataLoader

from mmdet_contrast.utils.launch_checks import (
    LaunchError,
    _CheckpointFitHook,
    check_batches,
    check_checkpoint,
    check_class_order,
    check_dataset,
    explained,
)

CFG = Config(dict(model=dict(type='X')))


def test_addresses_are_left_to_mmengine():
    check_checkpoint('https://example.com/x.pth', 'checkpoint')
    check_checkpoint(None, 'load_from')


@pytest.mark.parametrize(
    'error, message',
    [
        (FileNotFoundError(2, 'No such file or directory', 'a/b.json'), "file 'a/b.json', which"),
        (
            # As torch hands on what happened in a data loader's process.
            FileNotFoundError("Caught.\n  File x\nError: No such file or directory: 'c.jpg'"),
            "file 'c.jpg', which config '.no file.' leads to",
        ),
        (
            FileNotFoundError("no checkpoint at 'a/b.pth': the"),
            "checkpoint 'a/b.pth', which .*export",
        ),
        (FileNotFoundError('a/b.pth can not be found.'), "checkpoint 'a/b.pth', which config"),
        (
            AssertionError("assert f'failed to load image: {name}'\nfailed to load image: a b.jpg"),
            "image 'a b.jpg' is damaged",
        ),
        (EOFError('Ran out of input'), 'not a checkpoint .Ran out of input.: give a .pth'),
    ],
)
def test_known_errors_become_one_sentence(error, message):
    with pytest.raises(LaunchError, match=message) as caught, explained(CFG):
        raise error
    assert '\n' not in str(caught.value) and caught.value.__cause__ is error


@pytest.mark.parametrize(
    'error',
    [
        FileNotFoundError('nothing under my key'),
        AssertionError('shapes differ'),
        TypeError("forward() got an unexpected keyword argument 'mode'"),
        KeyError('gt_bboxes'),
    ],
)
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)) as caught, explained(CFG):
        raise error
    assert caught.value is error


class ToyDataset:
    def __init__(self, cat_ids, classes, ann_file, length=1):
        self.cat_ids, self.metainfo, self.ann_file = cat_ids, dict(classes=classes), ann_file
        self.length = length

    def __len__(self):
        return self.length


class Wrapper:
    def __init__(self, **inner):
        self.__dict__.update(inner)

    def __len__(self):
        return 1


def test_classes_are_compared_with_the_annotation_file(tmp_path):
    file = tmp_path / 'x.json'
    file.write_text('{"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}')
    good = ToyDataset([1, 2], ('cat', 'dog'), str(file))
    bad = ToyDataset([1], ('cat', 'dgo'), str(file))
    check_dataset(good, 'train_dataloader')
    check_dataset(Wrapper(dataset=Wrapper(datasets=[good])), 'train_dataloader')
    for dataset in (bad, Wrapper(dataset=bad), Wrapper(datasets=[good, bad])):
        with pytest.raises(LaunchError, match=r"train_dataloader: .*\['dgo'\].*\['cat', 'dog'\]"):
            check_dataset(dataset, 'train_dataloader')
    swapped = ToyDataset([1, 2], ('dog', 'cat'), str(file))
    with pytest.raises(LaunchError, match=r"lists them as \('cat', 'dog'\)"):
        check_dataset(swapped, 'train_dataloader')

    class OwnType(ToyDataset):
        METAINFO = dict(classes=('dog', 'cat'))

    # names of one's own type are no promise about one's files
    with pytest.raises(LaunchError, match=r"lists them as \('cat', 'dog'\)"):
        check_dataset(OwnType([1, 2], ('dog', 'cat'), str(file)), 'train_dataloader')
    with pytest.raises(LaunchError, match='val_dataloader: no image is left in the data set of'):
        check_dataset(ToyDataset([1], ('cat',), str(file), length=0), 'val_dataloader')


def test_epochs_without_a_batch_are_refused():
    check_batches(DataLoader([0] * 5, batch_size=5, drop_last=True), 'train_dataloader')
    check_batches(DataLoader([0] * 5, batch_size=8), 'train_dataloader')
    with pytest.raises(LaunchError, match=r'has 5 images.*train_dataloader.batch_size to 5 or'):
        check_batches(DataLoader([0] * 5, batch_size=8, drop_last=True), 'train_dataloader')


class ToyModel(torch.nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.body = torch.nn.Linear(3, width)
        self.contrast = torch.nn.Linear(width, 2)

    def test_step(self, data):
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in ('weight', 'bias'):  # the name of an older version
            if f'{prefix}trunk.{name}' in state_dict:
                state_dict[f'{prefix}body.{name}'] = state_dict.pop(f'{prefix}trunk.{name}')
        super()._load_from_state_dict(state_dict, prefix, *args)


class ToyTTA(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        raise NotImplementedError


def load(model, weights):
    runner = Wrapper(model=model)
    _CheckpointFitHook().after_load_checkpoint(runner, dict(state_dict=weights))


def test_a_checkpoint_must_fill_the_model():
    whole = ToyModel().state_dict()
    load(ToyModel(), whole)
    load(ToyModel(), OrderedDict((f'module.{name}', value) for name, value in whole.items()))
    load(ToyModel(), dict(whole, extra=torch.zeros(1)))
    load(ToyModel(), {n: v for n, v in whole.items() if not n.startswith('contrast.')})
    load(ToyModel(), {n.replace('body', 'trunk'): v for n, v in whole.items()})
    load(ToyTTA(ToyModel()), whole)
    with pytest.raises(LaunchError, match='body.bias is not in it: give a checkpoint of this con'):
        load(ToyModel(), {n: v for n, v in whole.items() if n != 'body.bias'})
    with pytest.raises(LaunchError, match='size mismatch for body.weight.*and 2 more such'):
        load(ToyModel(4), whole)


def test_classes_of_a_checkpoint_in_another_order_are_refused():
    checkpoint = dict(meta=dict(dataset_meta=dict(classes=('cat', 'dog'))))
    older = dict(meta=dict(dataset_meta=dict(CLASSES=['cat', 'dog'])))
    data = {names: ToyDataset([1], names, 'x.json') for names in [('cat', 'dog'), ('dog', 'cat')]}
    for given in (checkpoint, older):
        check_class_order(given, data['cat', 'dog'], 'test_dataloader', exact=True)
        with pytest.raises(LaunchError, match=r"test_dataloader has the classes \['dog', 'cat'\]"):
            check_class_order(given, data['dog', 'cat'], 'test_dataloader')
    fewer = ToyDataset([1], ('dog',), 'x.json')
    check_class_order(checkpoint, fewer, 'test_dataloader')
    with pytest.raises(LaunchError, match=r"trained with \['cat', 'dog'\]"):
        check_class_order(checkpoint, fewer, 'test_dataloader', exact=True)
    for unnamed in (dict(), dict(meta=None), dict(meta=dict(dataset_meta=None))):
        check_class_order(unnamed, fewer, 'test_dataloader', exact=True)
    check_class_order(checkpoint, None, 'test_dataloader', exact=True)
