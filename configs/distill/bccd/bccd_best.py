# Pseudo-labels, and the teacher's class and box maps.
_base_ = './bccd_finetune.py'

model = dict(
    pseudo_labels=dict(score_thr=0.4, iou_thr=0.6),
    distillers=[
        dict(
            source='bbox_head.cls',
            loss=dict(type='LogitsKLDivergence', tau=1.0, mode='bernoulli'),
            weight=500.0,
        ),
        dict(source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss'), weight=2.0),
    ],
)
