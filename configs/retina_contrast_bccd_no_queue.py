# Negatives of the batch alone; regions of 7 x 7 cells and half of the weight, with which this
# config and those that build on it were measured.
_base_ = './retina_contrast_bccd.py'

model = dict(
    bbox_head=dict(contrast=dict(queue=None, pool_size=7, criterion=dict(loss_weight=0.5)))
)
