# The student on all twenty types from a small split: channel-wise divergence 0.2 on four maps of
# the backbone and four of the neck, softmax-KL 0.01 on the teacher's classes, temperature 2, the
# backbone frozen for 5 epochs.
_base_ = './mar20_teacher.py'

metainfo = dict(classes=_base_.all_classes)
cwd = dict(type='ChannelWiseDivergence', tau=2.0)
kl = dict(type='LogitsKLDivergence', tau=2.0, mode='softmax')
sources = (
    'backbone.stage1',
    'backbone.stage2',
    'backbone.stage3',
    'backbone.stage4',
    'neck.top_down_blocks.0',
    'neck.top_down_blocks.1',
    'neck.bottom_up_blocks.0',
    'neck.bottom_up_blocks.1',
)
model = dict(
    _delete_=True,
    type='DistillationDetector',
    student=dict(_base_.model, bbox_head=dict(_base_.model.bbox_head, num_classes=20)),
    teacher=_base_.model,
    teacher_checkpoint='work_dirs/distill/mar20/teacher/epoch_120.pth',
    start_from_teacher=True,
    distillers=[
        *[dict(source=source, loss=cwd, weight=0.2) for source in sources],
        dict(source='bbox_head.cls', loss=kl, weight=0.01),
    ],
)
train_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='annotations/train_small.json'))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = dict(dataset=dict(metainfo=metainfo))
val_evaluator = dict(type='BaseNovelCocoMetric', base_classes=_base_.old_classes)
test_evaluator = dict(type='BaseNovelCocoMetric', base_classes=_base_.old_classes)
custom_hooks = [
    *_base_.custom_hooks[1:],
    dict(type='DistillationHook'),
    dict(type='FreezeBackboneHook', freeze_epochs=5, modules=('student.backbone',)),
]
# FreezeBackboneHook in several processes
find_unused_parameters = True
