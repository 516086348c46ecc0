# YOLOv8-n on COCO, 500 epochs from scratch: 8 GPUs with 16 images each.
_base_ = [
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/plugin.py',
    '../_base_/models/yolov8.py',
    '../_base_/schedules/schedule_yolov8.py',
]

scale = (640, 640)
border = (-scale[0] // 2, -scale[1] // 2)
max_epochs = 500
close_mosaic_epochs = 10
warmup_epochs = 3

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
    max_epochs=max_epochs,
    val_interval=10,
    dynamic_intervals=[(max_epochs - close_mosaic_epochs, 1)],
)
# 0.0005 for 64 images
optim_wrapper = dict(optimizer=dict(weight_decay=0.0005 * 128 / 64))
param_scheduler = [
    *[dict(scheduler, end=warmup_epochs) for scheduler in _base_.param_scheduler[:2]],
    dict(_base_.param_scheduler[2], begin=warmup_epochs, end=max_epochs),
]
custom_hooks = [
    dict(_base_.custom_hooks[0], epochs=warmup_epochs),
    _base_.custom_hooks[1],
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
