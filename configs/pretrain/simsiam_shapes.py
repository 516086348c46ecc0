# SimSiam on the generated shapes, images of a folder: the backbone of retina_shapes.py.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/retinanet_small.py',
    '../_base_/two_views.py',
]

model = dict(
    _delete_=True,
    type='SimSiam',
    data_preprocessor=_base_.data_preprocessor,
    # the detector's, of which the last stage is enough
    backbone=dict(_base_.model.backbone, base_channels=16, out_indices=(3,)),
    projector=dict(type='BatchNormMLP', channels=(128, 512, 512, 512), last_norm=True),
    predictor=dict(type='BatchNormMLP', channels=(512, 128, 512)),
)

view = [
    dict(type='RandomResizedCrop', scale=64, area_range=(0.2, 1.0)),
    *_base_.view_changes,
]
train_pipeline = [
    dict(type='LoadUnlabelledImage'),
    dict(type='MultiBranch', branch_field=['view1', 'view2'], view1=view, view2=view),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ImageFolderDataset', data_root='data/shapes/train', pipeline=train_pipeline),
)

max_epochs = 50
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    # parameter groups of its own for the predictor, which ConstantLRHook needs
    paramwise_cfg=dict(custom_keys=dict(predictor=dict(lr_mult=1.0))),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
custom_hooks = [dict(type='ConstantLRHook', modules=('predictor',))]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=10, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=64)
