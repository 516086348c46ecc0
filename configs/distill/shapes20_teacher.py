# The detector that is there: it knows the ten old classes.
_base_ = '../_base_/yolov8_n_shapes20.py'

model = dict(bbox_head=dict(num_classes=10))
metainfo = dict(classes=_base_.old_classes)
# a data set whose metainfo names ten classes has no others
train_dataloader = dict(
    dataset=dict(
        metainfo=metainfo,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
    )
)
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = dict(dataset=dict(metainfo=metainfo))
val_evaluator = dict(
    _delete_=True,
    type='CocoMetric',
    ann_file=_base_.val_evaluator.ann_file,
    metric='bbox',
    classwise=True,
)
test_evaluator = dict(val_evaluator, ann_file=_base_.test_evaluator.ann_file)
