# retina_shapes.py from a backbone that SimSiam has pre-trained:
# python tools/model_converters/export_backbone.py CHECKPOINT checkpoints/simsiam_shapes.pth
_base_ = '../contrast/retina_shapes.py'

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/simsiam_shapes.pth'))
)
