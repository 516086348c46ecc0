# SimSiam on one's own data, the training images that a COCO file names (its boxes are not read),
# here BCCD blood cells: the backbone of retina_bccd.py.
_base_ = './simsiam_shapes.py'

model = dict(
    backbone=dict(base_channels=32),
    projector=dict(channels=(256, 512, 512, 512)),
)

# Few pictures, each full of cells: a step takes one region of a picture, at about the size at which
# the detector sees the cells, so that its two views show the same cells.
region = dict(type='RandomResizedCrop', scale=128, area_range=(0.1, 0.3))
view = [
    dict(type='RandomResizedCrop', scale=64, area_range=(0.2, 1.0)),
    *_base_.view_changes,
]
train_pipeline = [
    dict(type='LoadUnlabelledImage'),
    region,
    dict(type='MultiBranch', branch_field=['view1', 'view2'], view1=view, view2=view),
]
train_dataloader = dict(
    batch_size=32,
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

# 205 pictures are 6 iterations: 720 in all
max_epochs = 120
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
default_hooks = dict(checkpoint=dict(interval=30))
auto_scale_lr = dict(base_batch_size=32)
