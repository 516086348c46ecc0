# Generalized Focal Loss that knows crazing, inclusion and patches of NEU-DET.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/gfl_small.py',
    '../_base_/datasets/neu_old.py',
    '../_base_/schedules/schedule_retinanet_small.py',
]

model = dict(bbox_head=dict(num_classes=3))
train_cfg = dict(max_epochs=24, val_interval=24)
optim_wrapper = dict(optimizer=dict(lr=7e-4))
param_scheduler = [dict(_base_.param_scheduler[0], T_max=24)]
auto_scale_lr = dict(base_batch_size=8)
