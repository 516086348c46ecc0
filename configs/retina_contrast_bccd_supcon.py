# Other objects of the class are positives.
_base_ = './retina_contrast_bccd.py'

criterion = dict(type='SupConLoss', temperature=0.1)
model = dict(bbox_head=dict(contrast=dict(criterion=criterion)))
