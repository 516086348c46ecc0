# The upper bound: all three classes annotated, from scratch.
_base_ = '../yolov8/yolov8_n_bccd.py'

val_evaluator = dict(type='BaseNovelCocoMetric', base_classes=('RBC', 'WBC'))
test_evaluator = dict(
    type='BaseNovelCocoMetric',
    base_classes=('RBC', 'WBC'),
    ann_file=_base_.val_evaluator.ann_file,
)
test_dataloader = dict(dataset=dict(ann_file=_base_.val_dataloader.dataset.ann_file))
