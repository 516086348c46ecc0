# The recipe that makes a detector contrastive; configs/contrast/README.md shows how a config uses it.
contrast_recipe = dict(
    model=dict(
        data_preprocessor=dict(type='ContrastiveDataPreprocessor'),
        bbox_head=dict(
            type='ContrastiveRetinaHead',
            contrast=dict(
                criterion=dict(type='NTXentLoss', loss_weight=0.5),
                # earlier objects of rare classes are negatives, too
                queue=dict(type='FeatureQueue', size=64),
            ),
        ),
    ),
    # in place of PackDetInputs, after every step that moves or drops boxes
    transforms=[
        dict(type='ContrastiveView', zoom_range=(2.0, 3.0)),
        dict(type='PackContrastiveInputs'),
    ],
)
