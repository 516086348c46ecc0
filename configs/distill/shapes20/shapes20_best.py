# Old classes are the teacher's business alone: their scores are learnt from its class maps wherever
# it looks, never from pictures that do not annotate them; boxes from its distributions, too.
_base_ = './shapes20_finetune.py'

model = dict(
    student=dict(
        bbox_head=dict(
            loss_cls=dict(
                type='SoftTargetBCELoss', loss_weight=0.5, class_weight=[0.0] * 10 + [1.0] * 10
            )
        )
    ),
    distillers=[
        dict(
            source='bbox_head.cls',
            loss=dict(type='LogitsKLDivergence', tau=1.0, mode='bernoulli'),
            weight=1000.0,
        ),
        dict(source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss'), weight=5.0),
    ],
)
