# RetinaNet with the region-contrastive loss on one's own VOC-style data.
_base_ = './retina_bccd.py'

model = dict(
    data_preprocessor=dict(type='ContrastiveDataPreprocessor'),
    bbox_head=dict(
        type='ContrastiveRetinaHead',
        contrast=dict(
            type='RegionContrast',
            pool_size=3,
            projector=dict(type='MLPProjector', hidden_channels=256, out_channels=128),
            scope='batch',
            # earlier objects of rare classes are negatives, too
            queue=dict(type='FeatureQueue', size=64),
            criterion=dict(
                type='NTXentLoss', temperature=0.5, negatives='other_class', loss_weight=1.0
            ),
        ),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=_base_.scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    # after every step that moves or drops boxes
    dict(type='ContrastiveView', zoom_range=(2.0, 3.0)),
    dict(type='PackContrastiveInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
custom_hooks = [dict(type='ViewEpochHook')]
