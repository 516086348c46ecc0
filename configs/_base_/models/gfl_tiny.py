# Generalized Focal Loss on a quarter of ResNet-18's width, for the generated shapes.
_base_ = './gfl_small.py'

model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=16)),
)
