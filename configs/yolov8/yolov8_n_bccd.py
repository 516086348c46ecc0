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
# few images: AdamW and a cosine, as retina_bccd.py has them; COCO's schedule is yolov8_n_coco.py's
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.001,
        # the run is short: the average must forget its beginning in a hundred iterations
        gamma=100,
        update_buffers=True,
        priority=49,
    )
]
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=4)
