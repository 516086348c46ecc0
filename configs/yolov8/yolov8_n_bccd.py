# YOLOv8-n from scratch on one's own data, here BCCD blood cells. For other data see docs/own_data.md.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/yolov8.py',
    '../_base_/datasets/bccd.py',
    '../_base_/schedules/schedule_yolov8.py',
]

model = dict(bbox_head=dict(num_classes=3))

warmup_epochs = 2
param_scheduler = [
    *[dict(scheduler, end=warmup_epochs) for scheduler in _base_.param_scheduler[:2]],
    dict(_base_.param_scheduler[2], begin=warmup_epochs),
]
# no average of the weights: the run is short and ends at a small learning rate
custom_hooks = [dict(_base_.custom_hooks[0], epochs=warmup_epochs)]
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=4)
