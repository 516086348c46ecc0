# RetinaNet-R50-FPN 1x on COCO with the region-contrastive loss. Schedule and data are
# MMDetection's; the head lists what one may want to change.
_base_ = './retina_coco.py'

model = dict(
    data_preprocessor=dict(type='ContrastiveDataPreprocessor'),
    bbox_head=dict(
        type='ContrastiveRetinaHead',
        contrast=dict(
            sampler=dict(type='ViewBoxes', pool_size=3),
            projector=dict(type='MLPProjector', hidden_channels=256, out_channels=128),
            scope='batch',
            queue=dict(type='FeatureQueue', size=64),
            criterion=dict(
                type='NTXentLoss', temperature=0.5, negatives='other_class', loss_weight=1.0
            ),
        ),
    ),
)

train_pipeline = [
    *_base_.train_pipeline[:-1],
    # after every step that moves or drops boxes
    dict(type='ContrastiveView', zoom_range=(2.0, 3.0)),
    dict(type='PackContrastiveInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
