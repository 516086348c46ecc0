# For the generated shapes: pictures are small and few, and a quarter of ResNet-18's width trains on
# them in minutes.
_base_ = './retinanet_small.py'

model = dict(
    backbone=dict(base_channels=16),
    # without normalisation, neck and head learn slowly from scratch; groups, because a batch of one
    # image has a single value per channel on P7
    neck=dict(in_channels=[16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=16)),
    bbox_head=dict(
        norm_cfg=dict(type='GN', num_groups=16),
        # anchors from 16 pixels on, as half of the objects are smaller than 32
        anchor_generator=dict(octave_base_scale=2),
    ),
)
