"""Checkpoints of training, resuming and testing: refused, judged, trusted, and those of a copy."""

import itertools
import os
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS, RUNNERS

from mmdet_contrast import apis, config_path
from mmdet_contrast.apis import infer
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.safe_loading import load_from_local

_NUMBERS = itertools.count()


def named(cfg):
    """Two runs of one name and second would share a visualizer, whose folder may be gone."""
    cfg.experiment_name = f'checkpoints{next(_NUMBERS)}'
    return cfg


def train(cfg, **kwargs):
    return apis.train(named(cfg), **kwargs)


def test(cfg, path, **kwargs):
    return apis.test(named(cfg), path, **kwargs)


test.__test__ = False


@MODELS.register_module()
class CheckpointToy(BaseModel):
    """Two layers, of which a file may fill one."""

    def __init__(self, init_cfg=None, data_preprocessor=None):
        super().__init__(data_preprocessor, init_cfg)
        self.body = torch.nn.Conv2d(1, 2, 1)
        self.head = torch.nn.Conv2d(2, 2, 1)

    def forward(self, inputs, mode='tensor'):
        if mode == 'predict':
            return [dict(value=self.head.weight.sum())]
        return dict(loss=self.head(self.body(torch.stack(inputs))).pow(2).mean())


@DATASETS.register_module()
class CheckpointToyDataset(torch.utils.data.Dataset):
    metainfo = dict(classes=('a',))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.full((1, 4, 4), float(index + 1)))


@METRICS.register_module()
class CheckpointToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(value=float(results[0]['value']))


LOADER = dict(
    num_workers=0,
    batch_size=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CheckpointToyDataset'),
)


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9)
    return Config(
        dict(
            default_scope='mmengine',
            runner_type='mmdet.CheckedRunner',
            work_dir=str(tmp_path / 'work'),
            model=dict(type='CheckpointToy'),
            train_dataloader=LOADER,
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=1),
            optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer),
            test_dataloader=LOADER,
            test_evaluator=dict(type='CheckpointToyMetric'),
            test_cfg=dict(type='TestLoop'),
            default_hooks=dict(run_check=dict(type='mmdet.RunCheckHook')),
        )
    )


class Attack:
    def __reduce__(self):
        return os.system, ('touch ran',)


@pytest.fixture
def attack(cfg):
    """A checkpoint that would do for every run, and runs a command when it is loaded."""
    train(cfg)
    content = load_from_local('work/epoch_1.pth')
    content['meta']['cfg_file'] = Attack()
    torch.save(content, 'attack.pth')
    shutil.rmtree('work')
    return 'attack.pth'


def start_from(cfg, path, **kwargs):
    cfg.load_from = path
    return train(cfg, **kwargs)


def init_from(cfg, path, **kwargs):
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=path)
    return train(cfg, **kwargs)


def resume_from(cfg, path, **kwargs):
    cfg.train_cfg.max_epochs = 2
    return train(cfg, resume=path, **kwargs)


RUNS = [start_from, init_from, resume_from, test]


@pytest.mark.parametrize('run', RUNS)
def test_code_runs_only_where_it_is_trusted(run, cfg, attack):
    with pytest.raises(LaunchError, match='attack.pth.* needs posix.system.* trust_checkpoint'):
        run(cfg, attack)
    assert not os.path.exists('ran')
    run(cfg, attack, trust_checkpoint=True)
    assert os.path.exists('ran')
    os.remove('ran')
    with pytest.raises(LaunchError, match='needs posix.system'):
        run(cfg, attack)
    assert not os.path.exists('ran')


def test_a_config_can_trust_as_well(cfg, attack):
    cfg.load_from = attack
    cfg.default_hooks.run_check.trust_checkpoint = True
    RUNNERS.build(named(cfg)).train()
    os.remove('ran')
    with pytest.raises(LaunchError, match='needs posix.system'):
        load_from_local(attack)


def test_inference_refuses_code(cfg, tmp_path):
    torch.save(dict(state_dict={}, meta=Attack()), 'attack.pth')
    cv2.imwrite('image.png', np.zeros((8, 8, 3), np.uint8))
    config = Config.fromfile(config_path('yolov8_n_shapes.py'))
    with pytest.raises(LaunchError, match='needs posix.system'):
        infer(config, 'attack.pth', 'image.png', 'out')
    assert not os.path.exists('ran')


@pytest.mark.parametrize('run', RUNS)
def test_what_is_no_checkpoint(run, cfg):
    torch.save(dict(state_dict=dict(w=torch.ones(999))), 'cut.pth')
    with open('cut.pth', 'r+b') as file:
        file.truncate(2000)
    with pytest.raises(LaunchError, match='cut.pth.* cannot be read'):
        run(cfg, 'cut.pth')
    with pytest.raises(FileNotFoundError, match='gone.pth'):
        run(cfg, 'gone.pth')


# ----------------------------------------------------------------------------------- what fits


def save_weights(prefix='', drop=()):
    weights = MODELS.build(dict(type='CheckpointToy')).state_dict()
    kept = {prefix + k: v for k, v in weights.items() if k not in drop}
    torch.save(dict(state_dict=kept), 'x.pth')
    return weights


def test_a_start_of_which_nothing_fits(cfg):
    save_weights('architecture.')
    with pytest.raises(LaunchError, match=r"load_from 'x.pth' fits none .*--strip architecture\."):
        start_from(cfg, 'x.pth')
    cfg.load_from = None
    with pytest.raises(LaunchError, match="model.init_cfg: .*set prefix='architecture.' in it"):
        init_from(cfg, 'x.pth')
    # it is not used by a run that goes on, nor in a test
    cfg.model.init_cfg = None
    train(cfg)
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint='x.pth', prefix='architecture.')
    train(cfg, resume='auto')
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint='x.pth')
    test(cfg, 'work/epoch_1.pth')


def test_a_start_of_which_little_fits(cfg):
    weights = save_weights(drop=('body.weight', 'body.bias', 'head.bias'))
    cfg.optim_wrapper.optimizer.lr = 0.0
    runner = start_from(cfg, 'x.pth')
    assert torch.equal(runner.model.head.weight.cpu(), weights['head.weight'])
    (log,) = (os.path.join(runner.log_dir, n) for n in os.listdir(runner.log_dir) if '.log' in n)
    with open(log) as file:
        assert "load_from 'x.pth' fills only 1 of 4 parameters" in file.read()


# ------------------------------------------------------------------------------- a copy goes on


@pytest.mark.parametrize('by_tool', [True, False])
def test_a_copied_work_directory_goes_on_from_its_own_checkpoint(cfg, by_tool):
    train(cfg)
    shutil.copytree('work', 'copy')
    cfg.train_cfg.max_epochs = 2
    # the original is trained on, and its checkpoint would be finished
    train(cfg, resume='auto')
    cfg.work_dir = 'copy'
    cfg.resume = True
    runner = train(cfg, resume='auto') if by_tool else RUNNERS.build(cfg)
    if not by_tool:
        runner.train()
    assert (runner.epoch, runner.iter) == (2, 2) and os.path.exists('copy/epoch_2.pth')


def test_a_moved_work_directory_without_its_checkpoint(cfg):
    train(cfg)
    os.rename('work', 'moved')
    os.remove('moved/epoch_1.pth')
    cfg.work_dir = 'moved'
    with pytest.raises(LaunchError, match='last_checkpoint of .*moved names .*moved/epoch_1.pth'):
        train(cfg, resume='auto')
