# YOLOv8-n from scratch on the generated shapes: minutes on two cores.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/yolov8.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_yolov8.py',
]

model = dict(bbox_head=dict(num_classes=3))

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=8)
