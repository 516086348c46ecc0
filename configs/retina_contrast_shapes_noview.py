# No second view: an object's two regions are its box, moved at random twice, in one image.
_base_ = './retina_shapes.py'

model = dict(
    bbox_head=dict(
        type='ContrastiveRetinaHead',
        contrast=dict(
            type='RegionContrast',
            key_source='image',
            box_jitter=0.1,
            pool_size=7,
            projector=dict(type='MLPProjector', hidden_channels=256, out_channels=128),
            scope='batch',
            criterion=dict(
                type='NTXentLoss', temperature=0.5, negatives='other_class', loss_weight=0.5
            ),
        ),
    )
)
