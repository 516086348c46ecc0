# Negatives of the batch alone.
_base_ = './retina_contrast_bccd.py'

model = dict(bbox_head=dict(contrast=dict(queue=None)))
