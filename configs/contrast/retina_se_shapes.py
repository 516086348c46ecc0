# retina_shapes.py with squeeze-and-excitation behind the last convolution of every bottleneck, and
# ResNet-50 in place of ResNet-18, whose blocks take no plug-ins.
_base_ = 'retina_shapes.py'

model = dict(
    backbone=dict(
        depth=50,
        plugins=[dict(cfg=dict(type='SEPlugin', ratio=16), position='after_conv3')],
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
