# YOLOv8-n on COCO with a cosine schedule after the warm-up.
_base_ = './yolov8_n_coco.py'

param_scheduler = [
    *_base_.param_scheduler[:2],
    dict(
        type='CosineAnnealingLR',
        eta_min=_base_.base_lr * 0.01,
        T_max=_base_.max_epochs - _base_.warmup_epochs,
        by_epoch=True,
        begin=_base_.warmup_epochs,
        end=_base_.max_epochs,
    ),
]
