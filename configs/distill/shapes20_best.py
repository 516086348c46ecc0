# The student keeps the teacher's batch statistics; old classes learn from the teacher's class and box
# maps alone, new ones from the annotations alone.
_base_ = './shapes20_finetune.py'

model = dict(
    # old objects are not annotated: the detection loss does not take them for background
    annotated_classes=_base_.new_classes,
    # with the statistics of each batch the student would differ from the teacher by noise alone
    norm_eval=True,
    distillers=[
        dict(
            source='bbox_head.cls',
            loss=dict(type='LogitsKLDivergence', average='objects'),
            weight=3.0,
        ),
        dict(source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss'), weight=2.5),
    ],
)
