"""Training and its runner, in one process and in several."""

import socket
import warnings

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS

from mmdet_contrast.apis import launch, train
from mmdet_contrast.apis.launch import build_runner
from mmdet_contrast.apis.train import _enable_amp
from mmdet_contrast.utils.config import LaunchError, load_config


@MODELS.register_module()
class LaunchToy(BaseModel):
    """A model of one layer, with or without batch normalisation of a given kind."""

    def __init__(self, norm_cfg=None, data_preprocessor=None):
        super().__init__(data_preprocessor)
        layers = [torch.nn.Conv2d(1, 2, 1)]
        if norm_cfg is not None:
            from mmcv.cnn import build_norm_layer

            layers.append(build_norm_layer(norm_cfg, 2)[1])
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.layers(torch.stack(inputs)).pow(2).mean())


@DATASETS.register_module()
class LaunchToyDataset(torch.utils.data.Dataset):
    metainfo = dict(classes=('a',))

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.full((1, 4, 4), float(index + 1)))


TEXT = """
default_scope = 'mmengine'
model = dict(type='LaunchToy')
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='LaunchToyDataset'))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork'), dist_cfg=dict(backend='nccl'))
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text(TEXT)
    return str(path)


# ---------------------------------------------------------------------------------------- training


def test_train_trains_and_resumes(config, tmp_path):
    runner = train(config, work_dir=str(tmp_path / 'w'))
    weight = runner.model.layers[0].weight.clone()
    assert runner.iter == 2 and (tmp_path / 'w' / 'epoch_1.pth').is_file()
    options = {'train_cfg.max_epochs': 3}
    resumed = train(config, str(tmp_path / 'w'), resume='auto', cfg_options=options)
    assert resumed.iter == 6 and resumed.epoch == 3
    assert not torch.equal(resumed.model.layers[0].weight, weight)
    # From the first epoch's file the same three epochs come out.
    again = train(
        config, str(tmp_path / 'v'), resume=str(tmp_path / 'w/epoch_1.pth'), cfg_options=options
    )
    assert torch.equal(again.model.layers[0].weight, resumed.model.layers[0].weight)


def test_resume_auto_without_checkpoint_starts_as_without_it(config, tmp_path):
    first = train(config, str(tmp_path / 'w'), resume='auto')
    assert first.iter == 2
    options = {'load_from': str(tmp_path / 'w/epoch_1.pth'), 'optim_wrapper.optimizer.lr': 0.0}
    second = train(config, str(tmp_path / 'v'), resume='auto', cfg_options=options)
    assert second.iter == 2
    assert torch.equal(second.model.layers[0].weight, first.model.layers[0].weight)


def test_amp_keeps_the_loss_scale_of_the_config():
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper', loss_scale=512.0)))
    _enable_amp(cfg)
    assert cfg.optim_wrapper.loss_scale == 512.0
    for plain in ('OptimWrapper', 'mmengine.OptimWrapper', OptimWrapper):
        cfg = Config(dict(optim_wrapper=dict(type=plain)))
        _enable_amp(cfg)
        assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')
    with pytest.raises(LaunchError, match="config uses 'ApexOptimWrapper'"):
        _enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


def test_auto_scale_lr_scales_or_says_what_is_missing(config, tmp_path):
    with pytest.raises(LaunchError, match='base_batch_size=…'):
        train(config, str(tmp_path), auto_scale_lr=True)
    options = {'auto_scale_lr': dict(enable=False, base_batch_size=8)}
    runner = train(config, str(tmp_path), auto_scale_lr=True, cfg_options=options)
    assert runner.optim_wrapper.get_lr()['lr'] == [pytest.approx(0.1 * 2 / 8)]


# ------------------------------------------------------------------------------------- distributed


@pytest.fixture
def one_process(monkeypatch):
    """Set the environment of torchrun with one process, and leave the group afterwards."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = str(sock.getsockname()[1])
    values = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1')
    for name, value in dict(values, MASTER_PORT=port).items():
        monkeypatch.setenv(name, value)
    yield
    if is_distributed():
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU MMEngine does all of it')
def test_cpu_processes_join_through_gloo(config, tmp_path, one_process):
    options = {'model.norm_cfg': dict(type='SyncBN'), 'find_unused_parameters': True}
    cfg = load_config(config, str(tmp_path), options, launcher='pytorch')
    with pytest.warns(UserWarning, match='this run on the CPU uses plain BN'):
        runner = build_runner(cfg)
    assert torch.distributed.get_backend() == 'gloo'
    assert isinstance(runner.model, MMDistributedDataParallel)
    assert runner.model.device_ids is None
    assert runner.model.find_unused_parameters and not runner.model.broadcast_buffers
    assert type(runner.model.module.layers[1]) is torch.nn.BatchNorm2d
    assert sum(type(hook).__name__ == 'SyncBuffersHook' for hook in runner.hooks) == 1
    # The config's own backend stays what it was: on a GPU the dumped config means nccl.
    assert runner.cfg.env_cfg.dist_cfg.backend == 'nccl'


@pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU MMEngine does all of it')
def test_the_configs_own_wrapper_is_kept(config, tmp_path, one_process):
    options = {
        'model_wrapper_cfg': dict(broadcast_buffers=True, device_ids=[0]),
        'custom_hooks': [dict(type='SyncBuffersHook')],
    }
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='synchronised batch normalisation')
        runner = build_runner(load_config(config, str(tmp_path), options, launcher='pytorch'))
    assert runner.model.broadcast_buffers and runner.model.device_ids is None
    assert sum(type(hook).__name__ == 'SyncBuffersHook' for hook in runner.hooks) == 1


def test_more_processes_than_gpus(config, monkeypatch, one_process):
    monkeypatch.setenv('LOCAL_RANK', '2')
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(LaunchError, match='process 2 of this machine has no GPU.*torch sees 2'):
        build_runner(load_config(config, launcher='pytorch'))
