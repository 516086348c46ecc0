# Linear evaluation on the cells of BCCD, cut out: the backbone of simsiam_bccd.py.
_base_ = './linear_shapes.py'

model = dict(
    in_channels=256,
    backbone=dict(
        base_channels=32,
        init_cfg=dict(checkpoint='work_dirs/simsiam_bccd/epoch_120.pth'),
    ),
)
boxes = dict(
    data_root='data/bccd/',
    data_prefix=dict(img='JPEGImages/'),
    metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
)
train_dataloader = dict(dataset=dict(dataset=dict(**boxes, ann_file='annotations/train.json')))
val_dataloader = dict(dataset=dict(dataset=dict(**boxes, ann_file='annotations/val.json')))
test_dataloader = dict(dataset=dict(dataset=dict(**boxes, ann_file='annotations/test.json')))
