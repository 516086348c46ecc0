# YOLOv8-n on one's own data from a converted backbone:
# python tools/model_converters/ultralytics_to_mmdet.py yolov8n.pt checkpoints/yolov8_n.pth
_base_ = './yolov8_n_bccd.py'

model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/yolov8_n.pth', prefix='backbone.')
    )
)
