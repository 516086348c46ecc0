# The student keeps the teacher's batch statistics; red and white cells learn from the teacher's class
# and box maps alone, platelets from the annotations alone.
_base_ = './bccd_finetune.py'

model = dict(
    # with the statistics of each batch the student would differ from the teacher by noise alone
    norm_eval=True,
    # red and white cells are not annotated: the detection loss does not take them for background
    annotated_classes=('Platelets',),
    distillers=[
        dict(
            source='bbox_head.cls',
            loss=dict(type='LogitsKLDivergence', average='objects'),
            weight=3.0,
        ),
        dict(source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss'), weight=2.5),
    ],
)
