import runpy
import sys

import pytest
import torch
from torch import nn

from mmdet_contrast.utils.complexity import (
    ModuleComplexity,
    complexity_table,
    config_complexity,
    measure_complexity,
)
from mmdet_contrast.utils.launch import load_config
from mmdet_contrast.utils.plain_forward import build_detector


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.neck = nn.ReLU()
        self.head = nn.Linear(4, 5)
        self.scale = nn.Parameter(torch.ones(5))
        self.backbone.weight.requires_grad_(False)

    def forward(self, images):
        features = self.neck(self.backbone(images)).mean((2, 3))
        return torch.matmul(self.head(features) * self.scale, torch.ones(5, 2))


def test_counts_equal_those_by_hand():
    model = Counted()
    rows = measure_complexity(model, (8, 12))
    assert rows == [
        # 3 x 4 kernels of 3 x 3, at 4 x 6 places
        ModuleComplexity('backbone', 0, 108, 108 * 4 * 6),
        ModuleComplexity('head', 25, 0, 20),
        ModuleComplexity('(outside modules)', 5, 0, 10),
        ModuleComplexity('total', 30, 108, 108 * 24 + 30),
    ]
    assert rows[-1].params == sum(weight.numel() for weight in model.parameters())
    assert model.training


def test_detector_from_its_config(repo_root):
    path = str(repo_root / 'configs' / 'retina_shapes.py')
    model = build_detector(load_config(path))
    rows = {row.name: row for row in measure_complexity(model, (64, 96))}
    assert list(rows) == ['backbone', 'neck', 'bbox_head', 'total']
    for name in ('backbone', 'neck', 'bbox_head'):
        part = getattr(model, name)
        assert rows[name].params == sum(weight.numel() for weight in part.parameters())
    # The head by hand: its convolutions, and 5 operations a value for the normalisation after four
    # of them, at the places of 5 levels of strides 8 to 128.
    places = sum(-(-64 // stride) * -(-96 // stride) for stride in (8, 16, 32, 64, 128))
    head = model.bbox_head
    convs = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    by_place = sum(conv.weight.numel() for conv in convs) + 4 * 64 * 5
    assert rows['bbox_head'].flops == places * by_place
    assert rows['total'].flops == sum(rows[n].flops for n in ('backbone', 'neck', 'bbox_head'))
    half = {row.name: row for row in measure_complexity(model, (128, 192))}
    assert half['backbone'].flops == 4 * rows['backbone'].flops


def test_two_stage_detector_and_frozen_stages():
    cfg = load_config_from_mmdet('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    rows = {row.name: row for row in measure_complexity(build_detector(cfg), (64, 64))}
    assert list(rows)[:4] == ['backbone', 'neck', 'rpn_head', 'roi_head']
    # ResNet-50's stem and first stage, which the config freezes.
    assert rows['backbone'].frozen == 225344 and rows['backbone'].params == 23508032


def load_config_from_mmdet(name):
    from mmengine.hub import get_config

    return load_config(get_config(f'mmdet::{name}'))


def test_table_has_every_number():
    rows = [
        ModuleComplexity('backbone', 1234, 5, 2_500_000_000),
        ModuleComplexity('total', 1, 2, 3),
    ]
    text = complexity_table(rows, (320, 640))
    for expected in ('3 x 320 x 640', 'backbone', '1,239', '1,234', '2.500', 'total'):
        assert expected in text


def test_contrastive_config_needs_neither_data_nor_weights(repo_root, monkeypatch):
    monkeypatch.setattr(
        'mmengine.runner.checkpoint.CheckpointLoader.load_checkpoint',
        lambda *args, **kwargs: pytest.fail('weights were loaded'),
    )
    text = config_complexity(
        str(repo_root / 'configs' / 'retina_contrast_coco.py'),
        (64, 64),
        {'model.bbox_head.contrast.projector.hidden_channels': 16},
    )
    assert 'bbox_head' in text and '225,344' in text


def test_bad_input_is_one_sentence(repo_root, tmp_path):
    path = str(repo_root / 'configs' / 'retina_shapes.py')
    with pytest.raises(ValueError, match=r'shape is \(0, 64\), but must be a height and a width'):
        config_complexity(path, (0, 64))
    empty = tmp_path / 'empty.py'
    empty.write_text('x = 1\n')
    with pytest.raises(ValueError, match='empty.py.* has no model'):
        config_complexity(str(empty))


def test_tool(repo_root, monkeypatch, capsys):
    tool = str(repo_root / 'tools' / 'analysis_tools' / 'get_flops.py')

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['get_flops.py', *arguments])
        runpy.run_path(tool, run_name='__main__')

    config = str(repo_root / 'configs' / 'retina_shapes.py')
    call(config, '--shape', '64', '96', '--cfg-options', 'model.backbone.frozen_stages=1')
    assert '3 x 64 x 96' in capsys.readouterr().out
    with pytest.raises(SystemExit, match="get_flops.py: error: config file 'no.py' does not exist"):
        call('no.py')
