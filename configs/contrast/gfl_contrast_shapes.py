# The contrastive loss on another head: Generalized Focal Loss, on the generated shapes.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/gfl_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_retinanet_tiny.py',
    '../_base_/contrast.py',
]

model = dict(
    data_preprocessor=_base_.contrast_recipe.model.data_preprocessor,
    bbox_head=dict(
        type='ContrastiveGFLHead',
        num_classes=3,
        contrast=_base_.contrast_recipe.model.bbox_head.contrast,
    ),
)
train_pipeline = [*_base_.train_pipeline[:-1], *_base_.contrast_recipe.transforms]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
