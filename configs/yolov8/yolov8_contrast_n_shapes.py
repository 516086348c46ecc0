# YOLOv8-n with the region-contrastive loss on the generated shapes.
_base_ = ['./yolov8_n_shapes.py', '../_base_/contrast.py']

model = dict(
    data_preprocessor=_base_.contrast_recipe.model.data_preprocessor,
    bbox_head=dict(_base_.contrast_recipe.model.bbox_head, type='ContrastiveYOLOv8Head'),
)
train_pipeline = [*_base_.train_pipeline[:-1], *_base_.contrast_recipe.transforms]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
