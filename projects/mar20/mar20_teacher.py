# YOLOv8-n at 640 pixels on the aircraft types A1-A10 of MAR20; README.md lays out the data.
_base_ = '../../configs/yolov8/yolov8_n_coco.py'

data_root = 'data/mar20/'
old_classes = tuple(f'A{i}' for i in range(1, 11))
all_classes = tuple(f'A{i}' for i in range(1, 21))
metainfo = dict(classes=old_classes)

model = dict(bbox_head=dict(num_classes=10))
max_epochs = 120
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/train.json',
        data_prefix=dict(img='JPEGImages/'),
    )
)
val_dataloader = dict(dataset=dict(train_dataloader['dataset'], ann_file='annotations/test.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/test.json', classwise=True)
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=max_epochs, dynamic_intervals=[(max_epochs - 10, 1)])
param_scheduler = [
    *_base_.param_scheduler[:2],
    dict(_base_.param_scheduler[2], end=max_epochs),
]
custom_hooks = [
    *_base_.custom_hooks[:2],
    dict(_base_.custom_hooks[2], switch_epoch=max_epochs - 10),
]
