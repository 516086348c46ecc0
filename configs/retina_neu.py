# Plain RetinaNet on NEU-DET steel defects: the twin of retina_contrast_neu.py.
_base_ = [
    'mmdet::_base_/default_runtime.py',
    './_base_/plugin.py',
    './_base_/models/retinanet_small.py',
    './_base_/datasets/neu.py',
]

model = dict(bbox_head=dict(num_classes=6))

max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=7e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=8)
