# Three of the six classes of NEU-DET, on the pictures that show them. Both files, and that of the
# other three classes, are cut by tools/dataset_converters/subset_coco.py, see configs/distill.
_base_ = './neu.py'

metainfo = dict(classes=('crazing', 'inclusion', 'patches'))
train_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='annotations/train_old.json'))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = dict(dataset=dict(metainfo=metainfo))
