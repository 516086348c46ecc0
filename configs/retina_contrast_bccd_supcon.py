# Other objects of the class are positives.
_base_ = './retina_contrast_bccd_no_queue.py'

criterion = dict(_delete_=True, type='SupConLoss', temperature=0.1, loss_weight=0.5)
model = dict(bbox_head=dict(contrast=dict(criterion=criterion)))
