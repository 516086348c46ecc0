# As much of the old classes as possible: the backbone stays frozen, the teacher weighs more.
_base_ = './shapes20_best.py'

model = dict(
    distillers=[
        dict(_base_.model.distillers[0], weight=2500.0),
        dict(_base_.model.distillers[1], weight=10.0),
    ]
)
custom_hooks = [
    _base_.custom_hooks[0],
    dict(type='FreezeBackboneHook', freeze_epochs=-1, modules=('student.backbone',)),
]
