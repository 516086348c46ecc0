# Linear evaluation on images in a folder for each class: data/images/train/<class>/*.jpg and
# data/images/val/<class>/*.jpg. Set data_root and model.num_classes. Train and val each number the
# classes that they have: where one lacks a class, give both metainfo=dict(classes=(...)).
_base_ = './linear_shapes.py'

data_root = 'data/images/'
image_size = (64, 64)
meta_keys = ('img_id', 'img_path', 'img_shape', 'gt_label')
train_pipeline = [
    dict(type='LoadUnlabelledImage'),
    dict(type='Resize', scale=image_size, keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadUnlabelledImage'),
    dict(type='Resize', scale=image_size, keep_ratio=False),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
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
