# Linear evaluation on the objects of the generated shapes, cut out: how well a linear classifier on
# the frozen backbone of simsiam_shapes.py tells the classes apart.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/retinanet_small.py',
    '../_base_/datasets/shapes.py',
]

model = dict(
    _delete_=True,
    type='LinearClassifier',
    num_classes=3,
    in_channels=128,
    data_preprocessor=dict(_base_.model.data_preprocessor, pad_size_divisor=1),
    # the detector's, of which the last stage is enough
    backbone=dict(
        _base_.model.backbone,
        base_channels=16,
        out_indices=(3,),
        # None evaluates random features, the floor that pre-training has to leave behind
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/simsiam_shapes/epoch_50.pth',
            prefix='backbone.',
        ),
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
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        _delete_=True,
        **crops,
        dataset=dict(_base_.train_dataloader.dataset, pipeline=[]),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    dataset=dict(
        _delete_=True,
        **crops,
        dataset=dict(_base_.val_dataloader.dataset, pipeline=[]),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        val_dataloader['dataset'],
        dataset=dict(_base_.test_dataloader.dataset, pipeline=[]),
    ),
)
val_evaluator = dict(_delete_=True, type='LabelAccuracy', topk=(1,))
test_evaluator = val_evaluator

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
