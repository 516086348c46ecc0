# retina_shapes.py from a backbone that simclr has pre-trained:
# python tools/model_converters/export_backbone.py CHECKPOINT checkpoints/simclr_shapes.pth
_base_ = '../retina_shapes.py'

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/simclr_shapes.pth'))
)
