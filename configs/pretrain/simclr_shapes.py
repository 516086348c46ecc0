# The same as simsiam_shapes.py with NT-Xent: negatives instead of a predictor.
_base_ = './simsiam_shapes.py'

model = dict(
    _delete_=True,
    type='SimCLR',
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.model.backbone,
    projector=dict(type='MLPProjector', in_channels=128, hidden_channels=512, out_channels=128),
    criterion=dict(type='NTXentLoss', temperature=0.5, negatives='all'),
)
optim_wrapper = dict(paramwise_cfg=None)
custom_hooks = []
