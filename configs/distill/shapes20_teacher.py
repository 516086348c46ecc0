# YOLOv8-n that knows the first ten of twenty classes of generated shapes, to which the others are added.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/yolov8.py',
    '../_base_/datasets/shapes20_old.py',
    '../_base_/schedules/schedule_yolov8.py',
]

model = dict(bbox_head=dict(num_classes=10))
train_cfg = dict(val_interval=15)
# no average of the weights: the schedule ends at a small learning rate
custom_hooks = _base_.custom_hooks[:1]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=8)
