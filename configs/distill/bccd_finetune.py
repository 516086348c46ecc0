# The lower bound: start from the teacher and train on pictures that annotate platelets only:
# tools/dataset_converters/subset_coco.py data/bccd/annotations/train.json
#     data/bccd/annotations/train_platelets.json --classes Platelets
_base_ = './bccd_joint.py'

model = dict(
    _delete_=True,
    type='DistillationDetector',
    student=_base_.model,
    teacher=dict(_base_.model, bbox_head=dict(_base_.model.bbox_head, num_classes=2)),
    teacher_checkpoint='work_dirs/distill/bccd/teacher/seed0/epoch_15.pth',
    start_from_teacher=True,
)
train_dataloader = dict(dataset=dict(ann_file='annotations/train_platelets.json'))
# a limit of 10, as from scratch, shortens most steps of the students to the same length
optim_wrapper = dict(optimizer=dict(lr=0.005), clip_grad=dict(max_norm=30.0))
custom_hooks = [
    # and no BiasWarmupHook: the biases are trained already
    dict(type='DistillationHook'),
    dict(type='FreezeBackboneHook', freeze_epochs=5, modules=('student.backbone',)),
]
# FreezeBackboneHook in several processes
find_unused_parameters = True
