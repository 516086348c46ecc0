# retina_contrast_shapes.py, but the view shows another object of the same class in each box. While none
# has been seen, it shows a zoom of the object itself. See docs/views.md.
_base_ = './retina_contrast_shapes.py'

train_pipeline = [
    *_base_.train_pipeline[:-2],
    dict(
        type='ContrastiveView',
        zoom_range=(2.0, 3.0),
        fill='same_class',
        bank=dict(max_per_class=64, min_size=12),
    ),
    dict(type='PackContrastiveInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
