# Generalized Focal Loss that knows the first ten of twenty classes of generated shapes.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/gfl_tiny.py',
    '../_base_/datasets/shapes20_old.py',
    '../_base_/schedules/schedule_retinanet_tiny.py',
]

model = dict(bbox_head=dict(num_classes=10))
train_cfg = dict(val_interval=10)
