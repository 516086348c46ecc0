# Linear evaluation on the objects of the generated shapes, cut out: how well a linear classifier on
# the frozen backbone tells the classes apart. The backbone is one that simsiam has pre-trained:
# python tools/model_converters/export_backbone.py CHECKPOINT checkpoints/simsiam_shapes.pth
_base_ = [
    'mmdet::_base_/default_runtime.py',
    '../_base_/plugin.py',
    '../_base_/datasets/shapes.py',
]

model = dict(
    type='LinearClassifier',
    num_classes=3,
    in_channels=128,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=16,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        # None evaluates random features, the floor that pre-training has to leave behind
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/simsiam_shapes.pth'),
    ),
)

crop_size = (64, 64)
meta_keys = ('img_id', 'img_shape', 'gt_label')
train_pipeline = [
    dict(type='LoadImageFromNDArray'),
    dict(type='Resize', scale=crop_size, keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadImageFromNDArray'),
    dict(type='Resize', scale=crop_size, keep_ratio=False),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
crops = dict(type='BoxCrops', context=0.1)
boxes = dict(type='CocoDataset', data_root=_base_.data_root, metainfo=_base_.metainfo)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        _delete_=True,
        **crops,
        dataset=dict(
            **boxes,
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='train/'),
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    dataset=dict(
        _delete_=True,
        **crops,
        dataset=dict(
            **boxes,
            ann_file='annotations/instances_val.json',
            data_prefix=dict(img='val/'),
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=64,
    dataset=dict(
        _delete_=True,
        **crops,
        dataset=dict(
            **boxes,
            ann_file='annotations/instances_test.json',
            data_prefix=dict(img='test/'),
        ),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(_delete_=True, type='LabelAccuracy', topk=(1,))
test_evaluator = dict(_delete_=True, type='LabelAccuracy', topk=(1,))

max_epochs = 20
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.0))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True)
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_epochs))
randomness = dict(seed=0)
