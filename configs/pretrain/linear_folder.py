# Linear evaluation on images in a folder for each class: data/images/train/<class>/*.jpg and
# data/images/val/<class>/*.jpg. Set data_root and model.num_classes. Train and val each number the
# classes that they have: where one lacks a class, give both metainfo=dict(classes=(...)).
_base_ = './linear_shapes.py'

data_root = 'data/images/'
load = dict(type='LoadUnlabelledImage')
train_pipeline = [load, *_base_.train_pipeline[1:]]
test_pipeline = [load, *_base_.test_pipeline[1:]]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='LabelledImageFolder',
        data_root=data_root + 'train',
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='LabelledImageFolder',
        data_root=data_root + 'val',
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
