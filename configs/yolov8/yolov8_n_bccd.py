# YOLOv8-n from scratch on one's own data, here BCCD blood cells. Change data_root, metainfo, scale
# and num_classes for other data.
_base_ = [
    'mmdet::_base_/default_runtime.py',
    '../_base_/plugin.py',
    '../_base_/models/yolov8.py',
    '../_base_/datasets/bccd.py',
]

model = dict(bbox_head=dict(num_classes=3))

max_epochs = 15
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# COCO's recipe with a short warm-up
warmup_epochs = 2
momentum = 0.937
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=momentum, nesterov=True, weight_decay=0.0005),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bypass_duplicate=True),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-5,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='LinearMomentum',
        start_factor=0.8 / momentum,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='LinearLR',
        start_factor=1.0,
        end_factor=0.01,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
    ),
]
# no average of the weights: the run is short and ends at a small learning rate
custom_hooks = [dict(type='BiasWarmupHook', start_lr=0.1, epochs=warmup_epochs)]
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=4)
