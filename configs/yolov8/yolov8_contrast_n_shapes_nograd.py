# The views pass without gradient: fixed targets for backbone and neck.
_base_ = './yolov8_contrast_n_shapes.py'

model = dict(type='ContrastiveYOLOv8Detector', view_grad=False)
