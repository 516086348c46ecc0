# SimSiam of ResNet-50 on the images of COCO, for 8 GPUs with 32 images each: the recipe of the
# paper (learning rate 0.05 for 256 images, batch normalisation over all GPUs, 100 epochs).
_base_ = './simsiam_shapes.py'

model = dict(
    backbone=dict(depth=50, base_channels=64),
    projector=dict(channels=(2048, 2048, 2048, 2048)),
    predictor=dict(channels=(2048, 512, 2048)),
)

view = [
    dict(type='RandomResizedCrop', scale=224, area_range=(0.2, 1.0)),
    *_base_.view_changes,
]
train_pipeline = [
    dict(type='LoadUnlabelledImage'),
    dict(type='MultiBranch', branch_field=['view1', 'view2'], view1=view, view2=view),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    dataset=dict(
        _delete_=True,
        type='CocoDataset',
        data_root='data/coco/',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        # no class is read, so none has to be named
        metainfo=dict(classes=()),
        pipeline=train_pipeline,
    ),
)

max_epochs = 100
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=10, max_keep_ckpts=3))
auto_scale_lr = dict(base_batch_size=256)
