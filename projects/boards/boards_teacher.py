# YOLOv8-n that knows three of the six defects of generated circuit boards.
_base_ = '../../configs/distill/neu_teacher.py'

data_root = 'data/boards/'
metainfo = dict(classes=('missing_hole', 'mouse_bite', 'open_circuit'))
max_epochs = 40
scale = (256, 256)
train_pipeline = [*_base_.train_pipeline]
train_pipeline[2] = dict(_base_.resize, scale=scale)
test_pipeline = [*_base_.test_pipeline]
test_pipeline[1] = dict(_base_.resize, scale=scale)
boards = dict(data_root=data_root, metainfo=metainfo, data_prefix=dict(img='images/'))
train_dataloader = dict(
    dataset=dict(ann_file='annotations/old.json', pipeline=train_pipeline, **boards)
)
val_dataloader = dict(
    dataset=dict(ann_file='annotations/val.json', pipeline=test_pipeline, **boards)
)
test_dataloader = dict(
    dataset=dict(ann_file='annotations/test.json', pipeline=test_pipeline, **boards)
)
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/test.json')
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    *_base_.param_scheduler[:2],
    dict(_base_.param_scheduler[2], end=max_epochs),
]
