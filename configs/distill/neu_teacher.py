# YOLOv8-n that knows crazing, inclusion and patches of NEU-DET, at 192 pixels.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/yolov8.py',
    '../_base_/datasets/neu_old.py',
    '../_base_/schedules/schedule_yolov8.py',
]

model = dict(bbox_head=dict(num_classes=3))
scale = (192, 192)
train_pipeline = [*_base_.train_pipeline]
train_pipeline[2] = dict(_base_.resize, scale=scale)
test_pipeline = [*_base_.test_pipeline]
test_pipeline[1] = dict(_base_.resize, scale=scale)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
train_cfg = dict(val_interval=15)
# no average of the weights: the schedule ends at a small learning rate
custom_hooks = _base_.custom_hooks[:1]
auto_scale_lr = dict(base_batch_size=8)
