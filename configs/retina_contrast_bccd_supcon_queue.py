# Other objects of the class are positives, earlier ones of other classes further negatives.
_base_ = './retina_contrast_bccd_supcon.py'

model = dict(bbox_head=dict(contrast=dict(queue=dict(_delete_=True, type='FeatureQueue', size=64))))
