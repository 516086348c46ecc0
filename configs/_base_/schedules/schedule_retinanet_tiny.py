# 10 epochs from scratch on the generated shapes, for batches of 8.
_base_ = './schedule_retinanet_small.py'

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(_base_.param_scheduler[0], T_max=10),
]
auto_scale_lr = dict(base_batch_size=8)
