"""Reading a config, and what the command line changes in it."""

import os

import pytest
from mmengine.config import Config

from mmdet_contrast.utils.config import (
    LaunchError,
    config_text,
    dataset_chain,
    load_config,
    type_name,
)

TEXT = """
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text(TEXT)
    return str(path)


def test_work_dir_comes_from_argument_then_config_then_name(config, tmp_path):
    assert load_config(config).work_dir == os.path.join('./work_dirs', 'toy')
    assert load_config(config, cfg_options={'work_dir': 'mine'}).work_dir == 'mine'
    assert load_config(config, str(tmp_path), {'work_dir': 'mine'}).work_dir == str(tmp_path)


def test_a_loaded_config_is_not_changed(config):
    cfg = Config.fromfile(config)
    load_config(cfg, 'elsewhere', {'train_cfg.max_epochs': 9})
    assert cfg.train_cfg.max_epochs == 1 and 'work_dir' not in cfg


def test_options_may_add_what_something_reads(config):
    options = {'find_unused_parameters': True, 'load_from': 'x.pth', 'train_cfg.val_interval': 3}
    cfg = load_config(config, cfg_options=options)
    assert cfg.find_unused_parameters and cfg.load_from == 'x.pth'
    assert cfg.train_cfg.val_interval == 3 and cfg.train_cfg.max_epochs == 1


@pytest.mark.parametrize(
    'key, hint', [('trian_cfg.max_epochs', "did you mean 'train_cfg'"), ('qqqq', 'config has')]
)
def test_options_that_change_nothing_are_refused(config, key, hint):
    with pytest.raises(LaunchError, match=f'nothing reads the key {key!r}; .*{hint}'):
        load_config(config, cfg_options={key: 2})


def test_a_missing_config_is_named():
    with pytest.raises(LaunchError, match="config file 'nope.py' does not exist"):
        load_config('nope.py')


def test_type_name():
    assert type_name('mmdet.PackDetInputs') == type_name('PackDetInputs') == 'PackDetInputs'
    assert type_name(Config) == 'Config'


def test_the_chain_of_wrappers_ends_in_the_first_data_set():
    first, second = dict(type='A'), dict(type='B')
    parts = dict(type='ConcatDataset', datasets=[first, second])
    repeated = dict(type='RepeatDataset', times=2, dataset=parts)
    assert dataset_chain(first) == [first]
    assert dataset_chain(repeated) == [repeated, parts, first]


def test_infinity_can_be_read_back(tmp_path):
    inf = float('inf')
    ranges = ((-1, 64), (64, inf))
    cfg = Config(dict(model=dict(ranges=ranges, sizes=[-inf, 0.5]), path='inf/inf', limit=inf))
    (tmp_path / 'written.py').write_text(config_text(cfg))
    assert Config.fromfile(tmp_path / 'written.py').to_dict() == cfg.to_dict()
