# Both: channel-wise divergence (0.2) and softmax-KL (0.01).
_base_ = './shapes20_cwd.py'

kl = dict(type='LogitsKLDivergence', tau=2.0, mode='softmax')
model = dict(
    distillers=[
        *_base_.model.distillers,
        dict(source='bbox_head.cls', loss=kl, weight=0.01),
    ]
)
