# The first ten of twenty classes of generated shapes. The data are made by `make distill`, or as
# projects/shapes/README.md says.
_base_ = './shapes.py'

data_root = 'data/shapes20/'
metainfo = dict(
    classes=(
        'striped_disc',
        'checkered_square',
        'dotted_triangle',
        'ringed_star',
        'zigzag_heart',
        'meshed_hexagon',
        'spoked_flower',
        'bricked_cross',
        'wavy_diamond',
        'speckled_shield',
    )
)
# the files annotate all twenty; a data set whose metainfo names ten classes has no others
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_test.json')
