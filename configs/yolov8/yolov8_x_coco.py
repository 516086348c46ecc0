# YOLOv8-x on COCO: yolov8_n_coco.py at another depth and width.
_base_ = './yolov8_n_coco.py'

model = dict(scale='x')
