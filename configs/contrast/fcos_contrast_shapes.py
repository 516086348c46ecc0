# The contrastive loss on an anchor-free head: FCOS, on the generated shapes.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/fcos_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_retinanet_tiny.py',
    '../_base_/contrast.py',
]

model = dict(
    data_preprocessor=_base_.contrast_recipe.model.data_preprocessor,
    bbox_head=dict(
        type='ContrastiveFCOSHead',
        num_classes=3,
        contrast=_base_.contrast_recipe.model.bbox_head.contrast,
    ),
)
train_pipeline = [*_base_.train_pipeline[:-1], *_base_.contrast_recipe.transforms]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
