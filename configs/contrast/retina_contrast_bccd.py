# RetinaNet with the region-contrastive loss on one's own VOC-style data.
_base_ = ['./retina_bccd.py', '../_base_/contrast.py']

model = _base_.contrast_recipe.model
train_pipeline = [*_base_.train_pipeline[:-1], *_base_.contrast_recipe.transforms]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
