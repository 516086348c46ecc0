import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_contrast.models.backbones import YOLOv8CSPDarknet

SMALL = dict(deepen_factor=0.33, widen_factor=0.125, last_stage_out_channels=256)


def test_shapes_and_channels():
    backbone = YOLOv8CSPDarknet(**SMALL, out_indices=(0, 1, 2, 3, 4))
    outs = backbone(torch.rand(2, 3, 64, 96))
    assert backbone.out_channels == (8, 16, 32, 64, 32)
    assert [tuple(out.shape) for out in outs] == [
        (2, 8, 32, 48),
        (2, 16, 16, 24),
        (2, 32, 8, 12),
        (2, 64, 4, 6),
        (2, 32, 2, 3),
    ]


def test_width_is_rounded_up_to_a_multiple_of_8():
    backbone = YOLOv8CSPDarknet(widen_factor=0.3, deepen_factor=0.33)
    assert backbone.out_channels == (80, 160, 312)


def test_normalisation_is_that_of_yolo():
    norms = [m for m in YOLOv8CSPDarknet(**SMALL).modules() if isinstance(m, _BatchNorm)]
    assert norms[0].eps == 0.001
    assert norms[0].momentum == 0.03
