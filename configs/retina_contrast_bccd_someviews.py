# retina_contrast_bccd.py, but three images in ten get a second view; an object of the others is
# compared with itself: its box, moved at random twice, in the one image.
_base_ = './retina_contrast_bccd.py'

model = dict(bbox_head=dict(contrast=dict(sampler=dict(type='ViewBoxes', jitter=0.1))))

train_pipeline = [
    *_base_.train_pipeline[:-2],
    dict(type='ContrastiveView', zoom_range=(2.0, 3.0), prob=0.3),
    dict(type='PackContrastiveInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
