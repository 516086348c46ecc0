# Plain RetinaNet on the generated shapes: the twin of retina_contrast_shapes.py.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/retinanet_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_retinanet_tiny.py',
]

model = dict(bbox_head=dict(num_classes=3))

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
# dict(type='VisdomVisBackend') in this list shows the run on a Visdom server
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
