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


def test_frozen_stages_stay_frozen_and_the_rest_trains():
    backbone = YOLOv8CSPDarknet(**SMALL, frozen_stages=1).train()
    for name in ('stem', 'stage1'):
        stage = getattr(backbone, name)
        assert not any(p.requires_grad for p in stage.parameters())
        assert not any(m.training for m in stage.modules())
    assert all(p.requires_grad for p in backbone.stage2.parameters())
    assert backbone.stage2.training


def test_norm_eval():
    backbone = YOLOv8CSPDarknet(**SMALL, norm_eval=True).train()
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert norms
    assert not any(m.training for m in norms)
    assert norms[0].eps == 0.001
    assert norms[0].momentum == 0.03
