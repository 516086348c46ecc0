# The two views of an object predict each other; there are no negatives.
_base_ = './retina_contrast_bccd.py'

criterion = dict(type='SimSiamLoss', in_channels=128, loss_weight=0.1)
model = dict(bbox_head=dict(contrast=dict(queue=None, criterion=criterion)))
