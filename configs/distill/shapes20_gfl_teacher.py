# Generalized Focal Loss that knows the first ten of twenty classes of generated shapes.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/gfl_small.py',
    '../_base_/datasets/shapes20_old.py',
    '../_base_/schedules/schedule_retinanet_tiny.py',
]

# the width of the other narrow detectors
model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=16)),
    bbox_head=dict(num_classes=10),
)
train_cfg = dict(val_interval=10)
