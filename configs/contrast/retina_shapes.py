# Plain RetinaNet on the generated shapes: the twin of retina_contrast_shapes.py.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/retinanet_small.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_retinanet_small.py',
]

model = dict(
    # the pictures are small and few: a quarter of ResNet-18's width trains on them in minutes
    backbone=dict(base_channels=16),
    # without normalisation, neck and head learn slowly from scratch; groups, because a batch of one
    # image has a single value per channel on P7
    neck=dict(in_channels=[16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=16)),
    bbox_head=dict(
        num_classes=3,
        norm_cfg=dict(type='GN', num_groups=16),
        # anchors from 16 pixels on, as half of the objects are smaller than 32
        anchor_generator=dict(octave_base_scale=2),
    ),
)

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(_base_.param_scheduler[0], T_max=10),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
# dict(type='VisdomVisBackend') in this list shows the run on a Visdom server
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
auto_scale_lr = dict(base_batch_size=8)
