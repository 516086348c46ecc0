# Feature locations inside the objects in place of boxes, other locations of the image as negatives.
_base_ = './retina_contrast_bccd.py'

model = dict(
    bbox_head=dict(
        contrast=dict(
            sampler=dict(type='PatchSampler', num_patches=256, region='boxes'),
            projector=dict(type='MLPProjector', hidden_channels=256, out_channels=256),
            share_projector=False,
            scope='image',
            # PatchNCE's own mean: over the locations
            average='objects',
            queue=None,
            criterion=dict(type='PatchNCELoss', temperature=0.07, loss_weight=1.0),
        )
    )
)
