import torch

from mmdet_contrast.models.necks import YOLOv8PAFPN


def feats(channels=(16, 32, 64), sizes=((8, 12), (4, 6), (2, 3))):
    return [torch.rand(1, c, *s) for c, s in zip(channels, sizes)]


def test_shapes_with_other_output_channels():
    neck = YOLOv8PAFPN([16, 32, 64], [24, 40, 56], deepen_factor=0.33)
    outs = neck(feats())
    assert [tuple(out.shape[1:]) for out in outs] == [(24, 8, 12), (40, 4, 6), (56, 2, 3)]
    assert neck.out_channels == (24, 40, 56)


def test_four_levels():
    neck = YOLOv8PAFPN([8, 16, 32, 64], deepen_factor=0.33)
    inputs = feats((8, 16, 32, 64), ((16, 16), (8, 8), (4, 4), (2, 2)))
    assert [out.shape for out in neck(inputs)] == [x.shape for x in inputs]


def test_every_output_depends_on_every_input():
    neck = YOLOv8PAFPN([16, 32, 64], deepen_factor=0.33).eval()
    inputs = [x.requires_grad_() for x in feats()]
    for out in neck(inputs):
        gradients = torch.autograd.grad(out.square().sum(), inputs, retain_graph=True)
        assert all(g.abs().sum() > 0 for g in gradients)
