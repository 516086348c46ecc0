# What pre-training with two random views of every image shares: the second half of a view (the
# first is a crop of the size that the config chooses) and the runtime without validation.
view_changes = [
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomApply',
        prob=0.8,
        transforms=[
            dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
        ],
    ),
    dict(
        type='RandomGrayscale',
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.299),
        color_format='bgr',
    ),
    dict(type='RandomApply', prob=0.5, transforms=[dict(type='GaussianBlur')]),
    dict(type='PackDetInputs', meta_keys=('img_path', 'img_shape')),
]
data_preprocessor = dict(
    type='MultiBranchDataPreprocessor',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
)
val_dataloader, val_cfg, val_evaluator = None, None, None
test_dataloader, test_cfg, test_evaluator = None, None, None

# statistics over the images of all processes; a run of one process does not look at it
sync_bn = 'torch'
randomness = dict(seed=0)
