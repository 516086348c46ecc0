# RetinaNet-R50-FPN 1x on COCO with the region-contrastive loss. Schedule and data are
# MMDetection's; the head lists what one may want to change.
_base_ = ['./retina_coco.py', './_base_/contrast.py']

model = dict(
    data_preprocessor=dict(type='ContrastiveDataPreprocessor'),
    bbox_head=dict(
        type='ContrastiveRetinaHead',
        contrast=dict(
            sampler=dict(type='ViewBoxes', pool_size=3),
            projector=dict(type='MLPProjector', hidden_channels=256, out_channels=128),
            criterion=dict(
                type='NTXentLoss', temperature=0.5, negatives='other_class', loss_weight=0.5
            ),
            average='classes',
            scope='batch',
            queue=dict(type='FeatureQueue', size=64),
        ),
    ),
)
train_pipeline = [*_base_.train_pipeline[:-1], *_base_.contrast_recipe.transforms]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
