# The two views of an object predict each other; there are no negatives.
_base_ = './retina_contrast_bccd_no_queue.py'

criterion = dict(_delete_=True, type='SimSiamLoss', in_channels=128, loss_weight=0.5)
model = dict(bbox_head=dict(contrast=dict(criterion=criterion)))
