# retina_contrast_bccd.py, but the view shows another object of the same class in each box. While none
# has been seen, it shows a zoom of the object itself. See docs/views.md.
_base_ = './retina_contrast_bccd.py'

train_pipeline = [
    *_base_.train_pipeline[:-2],
    dict(type='ContrastiveView', fill='same_class', bank=dict(max_per_class=64)),
    dict(type='PackContrastiveInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
