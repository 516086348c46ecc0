# The lower bound: start from the teacher and train on the pictures that annotate the new classes.
_base_ = '../_base_/yolov8_n_shapes20.py'

teacher = dict(_base_.model, bbox_head=dict(_base_.model.bbox_head, num_classes=10))
model = dict(
    _delete_=True,
    type='DistillationDetector',
    student=_base_.model,
    teacher=teacher,
    teacher_checkpoint='work_dirs/distill/shapes20/teacher/seed0/epoch_15.pth',
    start_from_teacher=True,
)

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
# a limit of 10, as from scratch, shortens most steps of the students to the same length
optim_wrapper = dict(optimizer=dict(lr=0.005), clip_grad=dict(max_norm=30.0))
param_scheduler = [
    *_base_.param_scheduler[:2],
    dict(_base_.param_scheduler[2], end=max_epochs),
]
custom_hooks = [
    # and no BiasWarmupHook: the biases are trained already
    dict(type='DistillationHook'),
    dict(type='FreezeBackboneHook', freeze_epochs=5, modules=('student.backbone',)),
]
# FreezeBackboneHook in several processes
find_unused_parameters = True
