# YOLOv8-n on COCO, 500 epochs from scratch: 8 GPUs with 16 images each.
_base_ = [
    'mmdet::_base_/default_runtime.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/plugin.py',
    '../_base_/models/yolov8.py',
]

scale = (640, 640)
border = (-scale[0] // 2, -scale[1] // 2)
max_epochs = 500
close_mosaic_epochs = 10
warmup_epochs = 3
base_lr = 0.01
momentum = 0.937

load = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
]
augment = [
    dict(type='YOLOXHSVRandomAug', hue_delta=3, saturation_delta=89, value_delta=51),
    dict(type='RandomFlip', prob=0.5),
    # keep_empty=False keeps pictures that are left without an object
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), keep_empty=False),
    dict(type='PackDetInputs'),
]
affine = dict(
    type='RandomAffine',
    max_rotate_degree=0.0,
    max_shear_degree=0.0,
    max_translate_ratio=0.1,
    scaling_ratio_range=(0.5, 1.5),
    border_val=(114, 114, 114),
)
train_pipeline = [
    *load,
    dict(type='CachedMosaic', img_scale=scale, pad_val=114.0, max_cached_images=40),
    dict(border=border, **affine),
    *augment,
]
# for the last epochs: pictures as they are
train_pipeline_stage2 = [
    *load,
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='Pad', size=scale, pad_val=dict(img=(114, 114, 114))),
    affine,
    *augment,
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='Pad', size=scale, pad_val=dict(img=(114, 114, 114))),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    # pictures are square after the mosaic
    batch_sampler=None,
    dataset=dict(filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=8, num_workers=4, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=8, num_workers=4, dataset=dict(pipeline=test_pipeline))

train_cfg = dict(
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_interval=10,
    dynamic_intervals=[(max_epochs - close_mosaic_epochs, 1)],
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    # 0.0005 for 64 images
    optimizer=dict(
        type='SGD', lr=base_lr, momentum=momentum, nesterov=True, weight_decay=0.0005 * 128 / 64
    ),
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
custom_hooks = [
    dict(type='BiasWarmupHook', start_lr=0.1, epochs=warmup_epochs),
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0001,
        update_buffers=True,
        priority=49,
    ),
    dict(
        type='PipelineSwitchHook',
        switch_epoch=max_epochs - close_mosaic_epochs,
        switch_pipeline=train_pipeline_stage2,
    ),
]
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=3, save_best='coco/bbox_mAP', rule='greater')
)
auto_scale_lr = dict(enable=False, base_batch_size=128)
