# YOLOv8-n with the region-contrastive loss on the generated shapes.
_base_ = './yolov8_n_shapes.py'

model = dict(
    data_preprocessor=dict(type='ContrastiveDataPreprocessor'),
    bbox_head=dict(
        type='ContrastiveYOLOv8Head',
        contrast=dict(
            type='RegionContrast',
            pool_size=3,
            # the levels have different numbers of channels
            projector=dict(type='MLPProjector', hidden_channels=256, out_channels=128),
            share_projector=False,
            scope='batch',
            criterion=dict(
                type='NTXentLoss', temperature=0.5, negatives='other_class', loss_weight=0.5
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
custom_hooks = [*_base_.custom_hooks, dict(type='ViewEpochHook')]
