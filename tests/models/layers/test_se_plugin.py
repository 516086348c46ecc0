"""The squeeze-and-excitation plug-in: values, place in the network, and the config that has it."""

import pytest
import torch
from mmdet.models.layers import SELayer
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_contrast import config_path
from mmdet_contrast.utils.config import LaunchError


def backbone(**plugin):
    cfg = dict(cfg=dict(type='SEPlugin', ratio=4), position='after_conv3')
    cfg.update(plugin)
    return MODELS.build(dict(type='ResNet', depth=50, base_channels=8, plugins=[cfg]))


def test_it_is_mmdetections_layer():
    ours, theirs = MODELS.build(dict(type='SEPlugin', in_channels=16, ratio=4)), SELayer(16, 4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 16, 5, 6)
    assert torch.equal(ours(x), theirs(x))
    # arXiv 1709.01507, equations 2 to 4
    first, second = ours.conv1.conv, ours.conv2.conv
    squeezed = x.mean((2, 3))
    hidden = (squeezed @ first.weight[:, :, 0, 0].T + first.bias).relu()
    scale = (hidden @ second.weight[:, :, 0, 0].T + second.bias).sigmoid()
    torch.testing.assert_close(ours(x), x * scale[:, :, None, None])


@pytest.mark.parametrize('position, channels', [('conv1', 16), ('conv2', 16), ('conv3', 64)])
def test_place_in_the_backbone(position, channels):
    model = backbone(position=f'after_{position}', stages=(False, True, False, False))
    found = {n: m for n, m in model.named_modules() if isinstance(m, SELayer)}
    assert list(found) == [f'layer2.{block}.se_layer' for block in range(4)]
    assert all(layer.conv1.conv.in_channels == channels for layer in found.values())


def test_a_ratio_that_leaves_no_channel():
    with pytest.raises(LaunchError, match='ratio=16 on 8 channels'):
        backbone(cfg=dict(type='SEPlugin', ratio=16), position='after_conv1')


def test_the_shipped_config_trains(tiny_shapes, tmp_path):
    cfg = Config.fromfile(config_path('retina_se_shapes.py'))
    cfg.work_dir, cfg.experiment_name = str(tmp_path), f'se-{tmp_path.name}'
    cfg.visualizer.update(name=str(tmp_path), vis_backends=[dict(type='LocalVisBackend')])
    data = cfg.train_dataloader.dataset
    data.data_root = f'{tiny_shapes}/'
    cfg.train_dataloader.update(batch_size=6, num_workers=0, persistent_workers=False)
    cfg.train_cfg.max_epochs = 1
    for key in ('cfg', 'dataloader', 'evaluator'):
        cfg[f'val_{key}'] = cfg[f'test_{key}'] = None
    cfg.default_hooks.checkpoint = None
    runner = Runner.from_cfg(cfg)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    assert runner.iter == 2
    after = runner.model.state_dict()
    layers = [n for n, m in runner.model.named_modules() if isinstance(m, SELayer)]
    # one in each of the 3 + 4 + 6 + 3 blocks
    assert len(layers) == 16
    weights = [f'{name}.{conv}.conv.weight' for name in layers for conv in ('conv1', 'conv2')]
    assert not [name for name in weights if torch.equal(after[name], before[name])]
