# Channel-wise divergence on four maps of the backbone and four of the neck, weight 0.2.
_base_ = './shapes20_finetune.py'

cwd = dict(type='ChannelWiseDivergence', tau=2.0)
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
model = dict(distillers=[dict(source=source, loss=cwd, weight=0.2) for source in sources])
