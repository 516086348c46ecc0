# YOLOv8-n on generated shapes of twenty classes, of which the first ten are the old ones. Trained on
# is instances_new_novel.json: pictures that show all classes and annotate the ten new ones only. The
# data are made by `make distill`, or as docs/add_classes.md says.
_base_ = '../yolov8/yolov8_n_shapes.py'

data_root = 'data/shapes20/'
old_classes = (
    'striped_disc',
    'checkered_square',
    'dotted_triangle',
    'ringed_star',
    'zigzag_heart',
    'meshed_hexagon',
    'spoked_flower',
    'bricked_cross',
    'wavy_diamond',
    'speckled_shield',
)
new_classes = (
    'barred_square',
    'slanted_disc',
    'scaled_heart',
    'argyle_triangle',
    'spiral_hexagon',
    'bubbled_star',
    'crossed_diamond',
    'halved_flower',
    'mottled_cross',
    'quartered_shield',
)
metainfo = dict(classes=(*old_classes, *new_classes))

model = dict(bbox_head=dict(num_classes=20))

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_new_novel.json',
        data_prefix=dict(img='new/'),
    )
)
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_evaluator = dict(
    type='BaseNovelCocoMetric',
    base_classes=old_classes,
    ann_file=data_root + 'annotations/instances_val.json',
)
test_evaluator = dict(
    type='BaseNovelCocoMetric',
    base_classes=old_classes,
    ann_file=data_root + 'annotations/instances_test.json',
)

train_cfg = dict(val_interval=15)
# no average of the weights: the schedule ends at a small learning rate
custom_hooks = _base_.custom_hooks[:1]
