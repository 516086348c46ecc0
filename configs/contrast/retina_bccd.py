# Plain RetinaNet on one's own VOC-style data, here BCCD blood cells: the twin of
# retina_contrast_bccd.py. For other data see docs/own_data.md.
_base_ = [
    '../_base_/plugin.py',
    '../_base_/models/retinanet_small.py',
    '../_base_/datasets/bccd.py',
    '../_base_/schedules/schedule_retinanet_small.py',
]

model = dict(bbox_head=dict(num_classes=3))
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
