# Plain RetinaNet on NEU-DET steel defects: the twin of retina_contrast_neu.py.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/retinanet_small.py',
    '../_base_/datasets/neu.py',
    '../_base_/schedules/schedule_retinanet_small.py',
]

model = dict(bbox_head=dict(num_classes=6))

train_cfg = dict(max_epochs=12, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=7e-4))
param_scheduler = [dict(_base_.param_scheduler[0], T_max=12)]
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=8)
