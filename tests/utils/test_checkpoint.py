"""Checkpoints: what does not fit a model or data, and which classes one names."""

import shutil
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule

from mmdet_contrast.compat import rename_state
from mmdet_contrast.utils.checkpoint import (
    check_class_order,
    check_pretrained,
    check_start,
    find_misfits,
    find_resumable,
    keep_own_files,
    name_classes,
    refuse_misfits,
)
from mmdet_contrast.utils.config import LaunchError


class ToyModel(torch.nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.body = torch.nn.Linear(3, width)
        self.contrast = torch.nn.Linear(width, 2)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in ('weight', 'bias'):  # the name of an older version
            if f'{prefix}trunk.{name}' in state_dict:
                state_dict[f'{prefix}body.{name}'] = state_dict.pop(f'{prefix}trunk.{name}')
        super()._load_from_state_dict(state_dict, prefix, *args)


def load(model, weights, **kwargs):
    refuse_misfits(find_misfits(model, dict(state_dict=weights), **kwargs))


def test_a_checkpoint_must_fill_the_model():
    whole = ToyModel().state_dict()
    load(ToyModel(), whole)
    load(ToyModel(), OrderedDict((f'module.{name}', value) for name, value in whole.items()))
    load(ToyModel(), dict(whole, extra=torch.zeros(1)))
    load(ToyModel(), {n: v for n, v in whole.items() if not n.startswith('contrast.')})
    load(ToyModel(), {n.replace('body', 'trunk'): v for n, v in whole.items()})
    with pytest.raises(LaunchError, match='body.bias is not in it: give a checkpoint of this con'):
        load(ToyModel(), {n: v for n, v in whole.items() if n != 'body.bias'})
    with pytest.raises(LaunchError, match='size mismatch for body.weight.*and 1 more such'):
        load(ToyModel(4), whole)


def test_what_only_training_uses_may_have_another_shape_in_a_test():
    model, other = ToyModel(), ToyModel()
    other.contrast = torch.nn.Linear(2, 5)
    kept = model.contrast.weight.clone()
    load(model, other.state_dict())
    assert torch.equal(model.body.weight, other.body.weight)
    assert torch.equal(model.contrast.weight, kept)
    with pytest.raises(LaunchError, match='size mismatch for contrast.weight'):
        load(ToyModel(), other.state_dict(), training=True)


def test_classes_of_a_checkpoint_in_another_order_are_refused():
    checkpoint = dict(meta=dict(dataset_meta=dict(classes=('cat', 'dog'))))
    older = dict(meta=dict(dataset_meta=dict(CLASSES=['cat', 'dog'])))
    data = {
        names: SimpleNamespace(metainfo=dict(classes=names))
        for names in [('cat', 'dog'), ('dog', 'cat')]
    }
    for given in (checkpoint, older):
        check_class_order(given, data['cat', 'dog'], 'test_dataloader', exact=True)
        with pytest.raises(LaunchError, match=r"test_dataloader has the classes \['dog', 'cat'\]"):
            check_class_order(given, data['dog', 'cat'], 'test_dataloader')
    fewer = SimpleNamespace(metainfo=dict(classes=('dog',)))
    check_class_order(checkpoint, fewer, 'test_dataloader')
    with pytest.raises(LaunchError, match=r"trained with \['cat', 'dog'\]"):
        check_class_order(checkpoint, fewer, 'test_dataloader', exact=True)
    for unnamed in (dict(), dict(meta=None), dict(meta=dict(dataset_meta=None))):
        check_class_order(unnamed, fewer, 'test_dataloader', exact=True)
    check_class_order(checkpoint, None, 'test_dataloader', exact=True)


def test_every_part_of_concatenated_data_is_compared():
    checkpoint = dict(meta=dict(dataset_meta=dict(classes=('cat', 'dog'))))

    def joined(*lists):
        return SimpleNamespace(metainfo=[dict(classes=names) for names in lists])

    check_class_order(checkpoint, joined(('cat', 'dog'), ('bird',)), 'train_dataloader')
    with pytest.raises(LaunchError, match=r"has the classes \['dog', 'cat'\], but the checkpoint"):
        check_class_order(checkpoint, joined(('cat', 'dog'), ('dog', 'cat')), 'train_dataloader')


@pytest.fixture
def cfg():
    data = dict(type='CocoDataset', ann_file='not_read.json', metainfo=dict(classes=('c', 'd')))
    return Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=data)))


def head(number):
    return SimpleNamespace(bbox_head=SimpleNamespace(num_classes=number))


@pytest.mark.parametrize(
    'meta, names',
    [
        (dict(dataset_meta=dict(CLASSES=('a', 'b'), palette=[1])), ['a', 'b']),
        (dict(CLASSES=('a', 'b')), ['a', 'b']),
        ({}, ['c', 'd']),
        (None, ['c', 'd']),
    ],
)
def test_names_of_the_classes(cfg, meta, names):
    for model in (head(2), SimpleNamespace(roi_head=head(2)), SimpleNamespace(student=head(2))):
        found = name_classes(model, dict(meta=meta), cfg)
        assert found['classes'] == names
        assert found.get('palette') == ([1] if 'dataset_meta' in (meta or {}) else None)


def test_as_many_names_as_classes(cfg):
    with pytest.raises(LaunchError, match=r"the config's test data names 2 .*\(c, d …\).* has 3"):
        name_classes(head(3), {}, cfg)
    with pytest.raises(LaunchError, match='the checkpoint names 1 classes'):
        name_classes(head(3), dict(meta=dict(CLASSES='a')), cfg)


# ------------------------------------------------------------------------- where a training starts


class Block(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv1 = torch.nn.Conv2d(1, 2, 3)
        self.conv2 = torch.nn.Conv2d(2, 3, 3)


class ToyDetector(BaseModule):
    def __init__(self, init_cfg=None, backbone=None):
        super().__init__(init_cfg)
        self.backbone = Block(backbone)
        self.head = torch.nn.Linear(3, 4)


def renamed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


def test_a_start_of_which_nothing_fits_is_refused():
    model = ToyDetector()
    whole = ToyDetector().state_dict()
    assert check_start(model, dict(state_dict=whole), 'x.pth') is None
    assert torch.equal(model.head.weight, whole['head.weight'])
    # MMEngine itself takes this one off
    assert check_start(model, renamed(whole, 'module.'), 'x.pth') is None
    for prefix in ('architecture.', 'model.', 'a.b.'):
        strip = f"begin with '{prefix}': .*rename_keys.py x.pth renamed.pth --strip {prefix}`"
        with pytest.raises(LaunchError, match=f"load_from 'x.pth' fits none of 6 .*{strip}"):
            check_start(ToyDetector(), renamed(whole, prefix), 'x.pth')
    with pytest.raises(LaunchError, match=r"model.backbone.init_cfg=dict\(type='Pretrained', chec"):
        check_start(ToyDetector(), Block().state_dict(), 'x.pth')
    for other in (dict(model=whole, epoch=3), dict(state_dict={}), {'head.weight': torch.ones(1)}):
        with pytest.raises(LaunchError, match=r"such as .*, not 'backbone.conv1.weight'"):
            check_start(ToyDetector(), other, 'x.pth')


def test_a_start_of_which_little_fits_is_told():
    backbone = renamed(Block().state_dict(), 'backbone.')
    assert check_start(ToyDetector(), backbone, 'x.pth') is None
    little = dict(backbone, **{'backbone.conv2.weight': torch.ones(7)})
    del little['backbone.conv2.bias']
    assert "load_from 'x.pth' fills only 2 of 6 param" in check_start(
        ToyDetector(), little, 'x.pth'
    )
    # an older name counts, and what only training uses does not
    older = {f'trunk.{name}': value for name, value in torch.nn.Linear(3, 2).state_dict().items()}
    assert check_start(ToyModel(), older, 'x.pth') is None


def test_names_of_the_state_dict_count():
    class Wrapper(torch.nn.Module):
        """Bears the names of what it wraps, as a distillation does."""

        def __init__(self):
            super().__init__()
            self.student = torch.nn.Linear(2, 2)
            rename_state(self, self._saved, self._loaded)

        @staticmethod
        def _saved(module, state, prefix, metadata):
            for name in list(state):
                state[name.replace('student.', '')] = state.pop(name)

        @staticmethod
        def _loaded(state, prefix, *_):
            for name in list(state):
                state[f'student.{name}'] = state.pop(name)

    weights = torch.nn.Linear(2, 2).state_dict()
    assert check_start(Wrapper(), weights, 'x.pth') is None
    load(Wrapper(), weights)
    with pytest.raises(LaunchError, match='bias is not in it'):
        load(Wrapper(), dict(weight=weights['weight']))
    with pytest.raises(LaunchError, match='--strip model.'):
        check_start(Wrapper(), renamed(weights, 'model.'), 'x.pth')


def pretrained(path, **kwargs):
    return dict(type='Pretrained', checkpoint=str(path), **kwargs)


def test_init_cfg_of_which_nothing_fits_is_refused(tmp_path):
    whole, part = tmp_path / 'whole.pth', tmp_path / 'part.pth'
    torch.save(dict(state_dict=ToyDetector().state_dict()), whole)
    torch.save(Block().state_dict(), part)
    for kwargs in (
        dict(),
        dict(backbone=pretrained(whole, prefix='backbone')),
        dict(backbone=[dict(type='Xavier', layer='Conv2d'), pretrained(part)]),
        dict(init_cfg=pretrained(whole)),
        dict(backbone=pretrained('https://host/x.pth')),
        dict(backbone=pretrained('torchvision://resnet50')),
    ):
        assert check_pretrained(ToyDetector(**kwargs)) == []
    for kwargs, message in (
        (
            dict(backbone=pretrained(whole)),
            "backbone.init_cfg: .*whole.pth' fits none of 4 .*prefix='backbone.' in it",
        ),
        (
            dict(backbone=[pretrained(whole, prefix='head')]),
            "prefix='head' fits none .*prefix='backbone.' in it",
        ),
        (dict(backbone=pretrained(part, prefix='backbone.')), 'leave out prefix'),
        (dict(init_cfg=pretrained(part)), 'set it as init_cfg of model.backbone'),
    ):
        with pytest.raises(LaunchError, match=message):
            check_pretrained(ToyDetector(**kwargs))
    with pytest.raises(FileNotFoundError, match='gone.pth'):
        check_pretrained(ToyDetector(pretrained(tmp_path / 'gone.pth')))
    little = {'backbone.conv1.bias': torch.ones(2)}
    torch.save(little, part)
    (warning,) = check_pretrained(ToyDetector(pretrained(part)))
    assert 'model.init_cfg: ' in warning and 'fills only 1 of 6 parameters' in warning


def test_init_cfg_that_a_module_reads_in_its_own_way_is_left_to_it(tmp_path):
    class Own(Block):
        def init_weights(self):
            pass

    torch.save(ToyDetector().state_dict(), tmp_path / 'x.pth')
    model = ToyDetector()
    model.backbone = Own(pretrained(tmp_path / 'x.pth'))
    assert check_pretrained(model) == []


def test_a_prefix_is_named_where_nothing_fits_in_a_test():
    weights = renamed(ToyDetector().state_dict(), 'architecture.')
    with pytest.raises(LaunchError, match='conv1.weight is not in it, but architecture.backbone.c'):
        load(ToyDetector(), weights)


# --------------------------------------------------------------------------------- where it goes on


@pytest.fixture
def work_dir(tmp_path):
    """A work directory as MMEngine leaves it."""
    folder = tmp_path / 'first'
    folder.mkdir()
    for name in ('epoch_2.pth', 'best_epoch_1.pth'):
        (folder / name).write_text(name)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    return folder


def test_a_copied_or_moved_work_directory_goes_on_from_its_own_checkpoint(work_dir, tmp_path):
    copy, moved = tmp_path / 'copy', tmp_path / 'moved'
    shutil.copytree(work_dir, copy)
    assert find_resumable(str(work_dir)) == str(work_dir / 'epoch_2.pth')
    assert find_resumable(str(copy)) == str(copy / 'epoch_2.pth')
    (copy / 'epoch_2.pth').unlink()
    with pytest.raises(LaunchError, match=f'last_checkpoint of {copy} names .*{copy}/epoch_2.pth'):
        find_resumable(str(copy))
    work_dir.rename(moved)
    assert find_resumable(str(moved)) == str(moved / 'epoch_2.pth')
    (moved / 'last_checkpoint').write_text(r'C:\runs\first\epoch_2.pth')
    assert find_resumable(str(moved)) == str(moved / 'epoch_2.pth')
    assert find_resumable(str(tmp_path / 'none')) is None


def test_checkpoints_that_are_written_elsewhere_stay_there(work_dir, tmp_path):
    elsewhere = tmp_path / 'out' / 'epoch_9.pth'
    elsewhere.parent.mkdir()
    elsewhere.write_text('')
    for recorded in (str(elsewhere), 's3://bucket/epoch_9.pth'):
        (work_dir / 'last_checkpoint').write_text(recorded)
        assert find_resumable(str(work_dir)) == recorded


def test_a_copy_does_not_name_the_best_checkpoint_of_the_original(work_dir, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(work_dir, copy)
    info = dict(best_ckpt=str(work_dir / 'best_epoch_1.pth'), best_ckpt_x='s3://b/x.pth', iter=3)
    checkpoint = dict(message_hub=dict(runtime_info=info))
    keep_own_files(checkpoint, str(work_dir))
    assert info['best_ckpt'] == str(work_dir / 'best_epoch_1.pth')
    (copy / 'best_epoch_1.pth').unlink()
    keep_own_files(checkpoint, str(copy))
    own = str(copy / 'best_epoch_1.pth')
    assert info == dict(best_ckpt=own, best_ckpt_x='s3://b/x.pth', iter=3)
    keep_own_files({}, str(copy))
