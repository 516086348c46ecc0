# Plain RetinaNet on one's own VOC-style data, here BCCD blood cells: the twin of
# retina_contrast_bccd.py. Change data_root, metainfo and scale for other data.
_base_ = [
    'mmdet::_base_/default_runtime.py',
    './_base_/plugin.py',
    './_base_/models/retinanet_small.py',
    './_base_/datasets/bccd.py',
]

model = dict(bbox_head=dict(num_classes=3))

max_epochs = 15
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=4)
