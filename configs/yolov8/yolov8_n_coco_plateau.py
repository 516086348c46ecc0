# YOLOv8-n on COCO; the learning rate is halved when AP has not risen in five evaluations.
_base_ = './yolov8_n_coco.py'

param_scheduler = [
    *_base_.param_scheduler[:2],
    dict(
        type='ReduceOnPlateauLR',
        monitor='coco/bbox_mAP',
        rule='greater',
        factor=0.5,
        patience=5,
        min_value=_base_.base_lr * 0.01,
        by_epoch=True,
        begin=_base_.warmup_epochs,
    ),
]
