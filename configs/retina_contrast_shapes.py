# RetinaNet with the region-contrastive loss on the generated shapes: what `make demo` trains.
_base_ = './retina_shapes.py'

model = dict(
    data_preprocessor=dict(type='ContrastiveDataPreprocessor'),
    bbox_head=dict(
        type='ContrastiveRetinaHead',
        # earlier objects of rare classes are negatives, too
        contrast=dict(queue=dict(type='FeatureQueue', size=64)),
    ),
)

train_pipeline = [
    *_base_.train_pipeline[:-1],
    # after every step that moves or drops boxes
    dict(type='ContrastiveView', zoom_range=(2.0, 3.0)),
    dict(type='PackContrastiveInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
