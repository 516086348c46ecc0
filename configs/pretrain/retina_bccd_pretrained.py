# retina_bccd.py from the backbone that simsiam_bccd.py has pre-trained.
_base_ = '../contrast/retina_bccd.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/simsiam_bccd/epoch_120.pth',
            prefix='backbone.',
        )
    )
)
