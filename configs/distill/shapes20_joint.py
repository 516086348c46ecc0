# The upper bound: all twenty classes annotated on all pictures, from scratch.
_base_ = '../_base_/yolov8_n_shapes20.py'

new = dict(_base_.train_dataloader.dataset, ann_file='annotations/instances_new.json')
old = dict(new, ann_file='annotations/instances_train.json', data_prefix=dict(img='train/'))
train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[old, new]))
