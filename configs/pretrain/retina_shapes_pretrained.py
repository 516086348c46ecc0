# retina_shapes.py from the backbone that simsiam_shapes.py has pre-trained.
_base_ = '../contrast/retina_shapes.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/simsiam_shapes/epoch_50.pth',
            prefix='backbone.',
        )
    )
)
