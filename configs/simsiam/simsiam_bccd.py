# SimSiam on one's own data, the training images that a COCO file names (its boxes are not read),
# here BCCD blood cells: the backbone of retina_bccd.py.
_base_ = './simsiam_shapes.py'

model = dict(
    backbone=dict(base_channels=32),
    projector=dict(channels=(256, 512, 512, 512)),
)

view = [
    dict(type='RandomResizedCrop', scale=80, area_range=(0.2, 1.0)),
    *_base_.view_changes,
]
train_pipeline = [
    dict(type='LoadUnlabelledImage'),
    dict(type='MultiBranch', branch_field=['view1', 'view2'], view1=view, view2=view),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CocoDataset',
        data_root='data/bccd/',
        ann_file='annotations/train.json',
        data_prefix=dict(img='JPEGImages/'),
        # no class is read, so none has to be named
        metainfo=dict(classes=()),
        pipeline=train_pipeline,
    ),
)

max_epochs = 100
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
default_hooks = dict(logger=dict(interval=3), checkpoint=dict(interval=25))
