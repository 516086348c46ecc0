# No second view: an object's two regions are its box, moved at random twice, in one image.
_base_ = './retina_bccd.py'

model = dict(
    bbox_head=dict(
        type='ContrastiveRetinaHead',
        contrast=dict(
            sampler=dict(type='JitteredBoxes', jitter=0.1),
            queue=dict(type='FeatureQueue', size=64),
        ),
    )
)
