from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from mmdet_contrast.utils.launch_checks import (
    LaunchError,
    check_batches,
    check_checkpoint,
    check_dataset,
    check_heads,
    class_lists,
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


def test_concatenated_data_with_different_metainfo():
    init_default_scope('mmdet')
    head = MODELS.build(dict(type='RetinaHead', num_classes=2, in_channels=8))
    metainfo = [dict(classes=('cat',)), dict(classes=('cat', 'dog', 'bird')), dict()]
    data = SimpleNamespace(metainfo=metainfo, datasets=[])
    assert class_lists(data) == [['cat'], ['cat', 'dog', 'bird']]
    check_dataset(data, 'train_dataloader')
    with pytest.raises(LaunchError, match='num_classes=2, but train_dataloader has the 3 classes'):
        check_heads(torch.nn.Sequential(head), data, 'train_dataloader')
