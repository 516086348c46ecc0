# Pseudo-labels, and the teacher's class and box maps wherever it looks: old objects are neither
# trained as background nor forgotten.
_base_ = './shapes20_pseudo_labels.py'

model = dict(
    distillers=[
        dict(
            source='bbox_head.cls',
            loss=dict(type='LogitsKLDivergence', tau=1.0, mode='bernoulli'),
            weight=500.0,
        ),
        dict(source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss'), weight=2.0),
    ]
)
