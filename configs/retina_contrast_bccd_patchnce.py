# Feature locations inside the objects in place of boxes, other locations of the image as negatives.
_base_ = './retina_contrast_bccd_no_queue.py'

model = dict(
    bbox_head=dict(
        contrast=dict(
            sampler=dict(type='PatchSampler', num_patches=256, region='boxes'),
            projector=dict(hidden_channels=256, out_channels=256),
            share_projector=False,
            scope='image',
            criterion=dict(_delete_=True, type='PatchNCELoss', temperature=0.07, loss_weight=0.5),
        )
    )
)
