# The detector that is there: YOLOv8-n that knows red and white blood cells.
_base_ = '../yolov8/yolov8_n_bccd.py'

old_classes = ('RBC', 'WBC')
model = dict(bbox_head=dict(num_classes=2))
metainfo = dict(classes=old_classes)
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
# figures are those of the validation split, as in docs/results.md
test_evaluator = dict(ann_file=_base_.val_evaluator.ann_file)
test_dataloader = dict(
    dataset=dict(metainfo=metainfo, ann_file=_base_.val_dataloader.dataset.ann_file)
)
